"""Verifying a run: every damaged file and manifest is named once, and nothing else."""

from pathlib import Path

import pytest

from flows.commands.cli import main
from tasks.history.verify import verify_run
from tasks.stage.contract import Outcome, Stage, run_stage
from tasks.stage.run import RunDirectoryError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of three stages with three files each."""

    def work(attempt: Path) -> Outcome:
        (attempt / "policy").mkdir()
        for name in ("rows.parquet", "policy/config.json", "log.txt"):
            (attempt / name).write_text("0123456789")
        return Outcome()

    for name in ("problems", "iter-1/train", "final/best"):
        run_stage(tmp_path / "run", Stage(name, 1, {}, {}), work)
    return tmp_path / "run"


def test_of_a_sound_run_nothing_is_said(run: Path) -> None:
    (run / "summary.json").write_text("{}")
    (run / "iter-1" / "train" / "log.txt").write_text("edited")
    (run / "iter-1" / ".score.attempt").mkdir()
    (run / "iter-1" / ".score.attempt" / "half.parquet").write_text("half")
    assert verify_run(run) == []


def test_every_damaged_file_is_named_with_its_stage_and_how(run: Path) -> None:
    (run / "problems" / "rows.parquet").write_text("0123456788")
    (run / "iter-1" / "train" / "policy" / "config.json").write_text("012")
    (run / "iter-1" / "train" / "rows.parquet").unlink()
    (run / "final" / "best" / "manifest.json").write_text("{")
    assert verify_run(run) == [
        f"{run}/final/best/manifest.json is not complete JSON, so the files in {run}/final/best cannot be verified.",
        f"{run}/iter-1/train/policy/config.json has 3 bytes instead of 10, so iter-1/train cannot be reused.",
        f"{run}/iter-1/train/rows.parquet is missing, so iter-1/train cannot be reused.",
        f"{run}/problems/rows.parquet was changed after it was written (its SHA-256 differs from manifest.json), "
        f"so problems cannot be reused.",
    ]


def test_a_stage_that_lost_its_manifest_is_named(run: Path) -> None:
    (run / "iter-1" / "train" / "manifest.json").unlink()
    (damage,) = verify_run(run)
    assert damage.startswith(f"{run}/iter-1/train/manifest.json is missing")


def test_a_file_that_became_a_folder_is_named(run: Path) -> None:
    rows = run / "problems" / "rows.parquet"
    rows.unlink()
    rows.mkdir()
    (damage,) = verify_run(run)
    assert damage.startswith(f"{rows} ")


@pytest.mark.parametrize("name", ["absent", "empty", "file"])
def test_where_no_run_is_that_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match=f"no finished stage in {tmp_path / name}"):
        verify_run(tmp_path / name)


def test_the_command_says_what_is_wrong_with_a_folder_without_stages(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".lock").touch()
    assert main(["verify", "empty", "--runs-dir", str(tmp_path)]) == 2
    assert "There is no finished stage in" in capsys.readouterr().err
