"""ReST-EM from the command line with the real engines: killed in generation and in training, and left alone.

Kills in every stage are tested with the stub programs. The run that is left alone has its programs forked.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.crashes import SETTINGS
from tasks.stage.contract import load_finished
from tests.e2e.conftest import autodidact
from tests.waiting import PATIENCE, eventually

PLACES = {"AUTODIDACT_CACHE": "cache", "HOME": "home", "TMPDIR": "tmp"}
# Where to kill: the stage, and the file in its attempt that shows it is under way.
KILLS = [
    ("iter-1/generate", "runs/killed/iter-1/.generate.attempt/samples/000001.parquet"),
    ("iter-1/train", "runs/killed/iter-1/.train.attempt/.checkpoints/*/complete"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rest-em")
    (folder / "settings.yaml").write_text(SETTINGS)
    (folder / "tmp").mkdir()
    return folder


def start(folder: Path, run: str) -> subprocess.Popen[str]:
    command = [Path(sys.executable).with_name("autodidact"), "rest-em", "--config", "settings.yaml", "--run", run]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "VLLM_"))}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environment | {name: str(folder / place) for name, place in PLACES.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, run: str) -> str:
    process = start(folder, run)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output[-5000:]
    return output


def digests(run: Path) -> dict[str, str]:
    found = {str(m.parent.relative_to(run)): load_finished(m.parent) for m in sorted(run.rglob("manifest.json"))}
    return {name: stage.manifest.digest for name, stage in found.items() if stage is not None}


@pytest.fixture(scope="module")
def killed(folder: Path) -> str:
    """What the command prints in the end after it was killed twice."""
    seen: dict[Path, int] = {}
    for stage, sign in KILLS:
        process = start(folder, "killed")
        eventually(lambda: any(folder.glob(sign)) or process.poll() is not None, f"{stage} was not reached")  # noqa: B023
        assert process.poll() is None, f"{stage}: {process.communicate()[0][-3000:]}"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        seen = still_there(folder, seen)
    by_kills = set((folder / "tmp").iterdir())
    output = finish(folder, "killed")
    still_there(folder, seen)
    left = set((folder / "tmp").iterdir()) - by_kills
    assert not [path for path in left if path.is_file()], "something is left in the temp folder"
    return output


def still_there(folder: Path, seen: dict[Path, int]) -> dict[Path, int]:
    """When each stage of the killed run was finished; those seen before are as they were."""
    manifests = {m: m.stat().st_mtime_ns for m in (folder / "runs" / "killed").rglob("manifest.json")}
    assert seen.items() <= manifests.items(), "a finished stage was run twice"
    return manifests


def test_the_command_prints_table_report_and_history(folder, killed):
    for words in ("Validation, by iteration", "Held out to the end", "report.html", "mlflow ui", "tokens/s"):
        assert words in killed
    assert "leaked" not in killed
    run = folder / "runs" / "killed"
    assert len(digests(run)) == 11
    assert (run / "best" / "policy" / "model.safetensors").exists()
    assert (run / "report.html").read_text().count("<svg") >= 3


def test_nothing_is_written_outside_the_run_and_cache_folders(folder, killed):
    assert not (folder / "home").exists() or not any(p.is_file() for p in (folder / "home").rglob("*"))
    assert {p.name for p in folder.iterdir()} <= {"settings.yaml", "runs", *PLACES.values()}
    assert not (folder / "cache" / "torch_extensions").exists(), "something was compiled"


def test_a_finished_run_answers_at_once(folder, killed):
    started = time.monotonic()
    output = finish(folder, "killed")
    assert "nothing is left to do" in output
    assert "Prefect" not in output
    assert time.monotonic() - started < 60


def test_killed_in_generation_and_in_training_it_ends_with_the_digests_of_a_run_that_was_left_alone(folder, killed):
    autodidact(folder, "rest-em", "--config", "settings.yaml", "--run", "undisturbed")
    assert digests(folder / "runs" / "killed") == digests(folder / "runs" / "undisturbed")
