"""Runs the programs of stages as forks (see tests/forks.py)."""

import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.stage.environment import SHARED_CPU, child_environment
from tasks.stage.process import ChildError, run_child
from tasks.stage.run import Run
from tests.forks import Fork, kill_group
from tests.waiting import PATIENCE


@contextmanager
def started(module: str, config: Path, log: Path | None = None) -> Iterator[Fork]:
    """`python -m MODULE CONFIG` in a process, which is killed if it has not ended.

    Args:
        log: what it prints is appended to it; by default to a new file beside the configuration.
    """
    if log is None:
        _log(config).unlink(missing_ok=True)
    environment = child_environment(SHARED_CPU)
    process = Fork(_main, module, str(config), str(log or _log(config)), environment=environment)
    try:
        yield process
    finally:
        kill_group(process)


def run_program(module: str, config: Path, log: Path | None = None) -> str:
    """Run `python -m MODULE CONFIG` to its end; return the end of what it printed."""
    with started(module, config, log) as process:
        assert process.wait(PATIENCE) == 0, printed(config, log)
    return printed(config, log)


def printed(config: Path, log: Path | None = None) -> str:
    """The end of what a program printed."""
    return (log or _log(config)).read_text()[-3000:]


def _log(config: Path) -> Path:
    return config.with_suffix(".out")


def use_forks(replace: Callable[[Any, str, Any], None]) -> None:
    """Have flows run their programs so."""
    replace(Run, "start", staticmethod(_run_child))


def _run_child(
    command: Sequence[str],
    log_path: Path,
    lock: Path,
    logger: logging.Logger,
    environment: Mapping[str, str] | None = None,
) -> None:
    """What the function of that name does, but that nobody supervises or hears the program while it runs.

    Commands other than `python -m MODULE CONFIG` are left to that function, and the program that scores: it starts
    processes itself.
    """
    if len(command) != 4 or command[1:3] == ["-m", "models.score"] or command[1] != "-m":
        run_child(command, log_path, lock, logger, environment)
        return
    try:
        run_program(command[2], Path(command[3]), log_path)
    except AssertionError as error:
        raise ChildError(str(error)) from error


def _main(module: str, config: str, log: str) -> None:
    with open(log, "ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [module, config]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)  # as in a process of its own
        sys.exit(1)
