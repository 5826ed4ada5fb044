"""Runs the programs of stages as forks (see tests/forks.py)."""

import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import tasks.adapter
import tasks.sample
import tasks.train
from tasks.environment import SHARED_CPU, child_environment
from tasks.process import ChildError, run_child
from tests.forks import fork
from tests.waiting import PATIENCE


@contextmanager
def started(module: str, config: Path) -> Iterator[BaseProcess]:
    """`python -m MODULE CONFIG` in a process, which is killed if it has not ended."""
    process = fork(_main, module, str(config), str(_printed(config)), environment=child_environment(SHARED_CPU))
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run_program(module: str, config: Path) -> str:
    """Run `python -m MODULE CONFIG` to its end; return the end of what it printed."""
    with started(module, config) as process:
        process.join(PATIENCE)
        assert process.exitcode == 0, printed(config)
    return printed(config)


def printed(config: Path) -> str:
    """The end of what a program printed."""
    return _printed(config).read_text()[-3000:]


def _printed(config: Path) -> Path:
    return config.with_suffix(".out")


def use_forks(replace: Callable[[Any, str, Any], None]) -> None:
    """Have flows run their programs so."""
    for module in (tasks.sample, tasks.train, tasks.adapter):
        replace(module, "run_child", _run_child)


def _run_child(
    command: Sequence[str],
    log_path: Path,
    lock: Path,
    logger: logging.Logger,
    environment: Mapping[str, str] | None = None,
) -> None:
    """What the function of that name does, without a supervisor where the command is `python -m MODULE CONFIG`."""
    if len(command) != 4 or command[1] != "-m":
        run_child(command, log_path, lock, logger, environment)
        return
    try:
        log_path.write_text(run_program(command[2], Path(command[3])))
    except AssertionError as error:
        raise ChildError(str(error)) from error


def _main(module: str, config: str, file: str) -> None:
    with open(file, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [module, config]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
