"""Runs training programs as processes of their own, forked from one that has imported what they need.

The imports take as long as a tiny training. All forks share a seed of string hashes: what must not depend on it is
compared with a program that was started anew.
"""

import multiprocessing
import os
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED
from tests.waiting import PATIENCE

REWARD_SCORE = "models.reward_score"
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload([SUPERVISED, PREFERENCE, LIKELIHOOD, REWARD, REWARD_SCORE])


@contextmanager
def started(module: str, config: Path) -> Iterator[BaseProcess]:
    """`python -m MODULE CONFIG` in a process, which is killed if it has not ended."""
    process = _context.Process(target=_main, args=(module, str(config), str(_printed(config))))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run_program(module: str, config: Path) -> str:
    """Run `python -m MODULE CONFIG` to its end; return what it printed."""
    with started(module, config) as process:
        process.join(PATIENCE)
        assert process.exitcode == 0, printed(config)
    return printed(config)


def printed(config: Path) -> str:
    """The end of what a program printed."""
    return _printed(config).read_text()[-3000:]


def _printed(config: Path) -> Path:
    return config.with_suffix(".out")


def _main(module: str, config: str, file: str) -> None:
    with open(file, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [module, config]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
