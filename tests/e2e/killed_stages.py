"""A flow that is killed while each of some stages runs, and ends with the same bytes as one that is not."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tasks.stage.contract import attempt_directory
from tests.waiting import PATIENCE, eventually

Arguments = Callable[[Path], list[str]]  # writes what a command needs into a folder, and returns its arguments


def same_bytes_after_kills(folder: Path, arguments: Arguments, run: str, stages: Sequence[str]) -> None:
    """Run a flow once as it is, and once with a kill in each stage; compare what they made.

    Args:
        arguments: of the flow, its name first.
        run: the run's name.
        stages: in the order in which they run.
    """
    whole, killed = folder / "whole", folder / "killed"
    for one in (whole, killed):
        one.mkdir()
    assert _start(whole, arguments).wait(3 * PATIENCE) == 0, _said(whole)
    for stage in stages:
        process, log = _start(killed, arguments), attempt_directory(killed / "runs" / run, stage) / "log.txt"
        eventually(log.exists, lambda: _said(killed))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        assert not (killed / "runs" / run / stage).exists()
    assert _start(killed, arguments).wait(3 * PATIENCE) == 0, _said(killed)
    assert _results(killed / "runs" / run) == _results(whole / "runs" / run)


def _start(folder: Path, arguments: Arguments) -> subprocess.Popen[bytes]:
    """The command as a user starts it, in a process group of its own."""
    command = [sys.executable, "-m", "flows.commands.cli", *arguments(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    environment["AUTODIDACT_CACHE"] = str(folder.parent / "cache")
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def _said(folder: Path) -> str:
    return (folder / "out.txt").read_text()[-3000:]


def _results(run: Path) -> dict[str, str]:
    """The SHA-256 of every file that a stage made, but for logs."""
    found = {}
    for file in run.rglob("manifest.json"):
        for name, record in json.loads(file.read_text())["outputs"].items():
            if not name.endswith(".txt"):
                found[f"{file.parent.relative_to(run)}/{name}"] = record["sha256"]
    return found
