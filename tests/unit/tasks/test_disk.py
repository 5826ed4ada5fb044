"""What takes the disk, by kind: links are followed nowhere and counted once."""

import os
from pathlib import Path

import pytest

from flows.commands.cli import main
from tasks.history.disk import disk_usage

SIZES = {
    "em/iter-1/train/policy/model.safetensors": 1000,
    "em/iter-1/train/adapter/adapter_model.safetensors": 100,
    "em/iter-2/.train.attempt/.checkpoints/checkpoint-20/optimizer.pt": 3000,
    "em/iter-2/generate/samples/0.parquet": 50,
    "em/iter-2/generate/log.txt": 7,
    "spin/base/policy/config.json": 1,
}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name, size in SIZES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    weights = tmp_path / "em/iter-1/train/policy/model.safetensors"
    for run in ("em", "spin"):
        (tmp_path / run / "best/policy").mkdir(parents=True)
        os.link(weights, tmp_path / run / "best/policy/model.safetensors")
        (tmp_path / run / ".lock").touch()
    (tmp_path / "spin/base/policy/model.safetensors").symlink_to(weights)
    return tmp_path


def test_each_run_and_all_of_them_have_their_bytes_by_kind(runs: Path) -> None:
    (em, spin), everything = disk_usage([runs / "em", runs / "spin"])
    assert em.bytes == {"checkpoints": 1100, "training": 3000, "rows": 50, "other": 7}
    assert spin.bytes == {"checkpoints": 1001, "training": 0, "rows": 0, "other": 0}
    assert (em.total, spin.total, everything.total) == (4157, 1001, 4158)


def test_the_command_lists_the_largest_first_and_what_is_free(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--disk", "--runs_dir", str(runs)]) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines() if line.startswith("│")]
    assert [line[1] for line in lines] == ["em", "spin", "total"]
    assert f"are free on the disk of {runs}" in told
