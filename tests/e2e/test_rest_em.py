"""ReST-EM from the command line with the real engines: killed in training, and left alone; nightly, in generation.

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
# The file in a stage's attempt that shows it is under way.
GENERATING = "iter-1/.generate.attempt/samples/000001.parquet"
TRAINING = "iter-1/.train.attempt/.checkpoints/*/complete"


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


def kill(folder: Path, run: str, sign: str) -> dict[Path, int]:
    """Start a run and kill it when a file appears; return when each of its finished stages was."""
    process = start(folder, run)
    eventually(lambda: any((folder / "runs" / run).glob(sign)) or process.poll() is not None, f"no {sign}")
    assert process.poll() is None, process.communicate()[0][-3000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return finished(folder, run)


def finished(folder: Path, run: str) -> dict[Path, int]:
    return {m: m.stat().st_mtime_ns for m in (folder / "runs" / run).rglob("manifest.json")}


@pytest.fixture(scope="module")
def killed(folder: Path) -> str:
    """What the command prints in the end after it was killed."""
    before = kill(folder, "killed", TRAINING)
    by_kills = set((folder / "tmp").iterdir())
    output = finish(folder, "killed")
    assert before.items() <= finished(folder, "killed").items(), "a finished stage was run twice"
    left = set((folder / "tmp").iterdir()) - by_kills
    assert not [path for path in left if path.is_file()], "something is left in the temp folder"
    return output


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


def test_killed_in_training_it_ends_with_the_digests_of_a_run_that_was_left_alone(folder, killed):
    autodidact(folder, "rest-em", "--config", "settings.yaml", "--run", "undisturbed")
    assert digests(folder / "runs" / "killed") == digests(folder / "runs" / "undisturbed")


@pytest.mark.nightly  # the stub programs are killed in generation by the suite that CI runs
def test_killed_in_generation_it_ends_with_the_same_digests_too(folder, killed):
    before = kill(folder, "early", GENERATING)
    finish(folder, "early")
    assert before.items() <= finished(folder, "early").items(), "a finished stage was run twice"
    assert digests(folder / "runs" / "early") == digests(folder / "runs" / "killed")
