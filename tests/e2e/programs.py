"""Runs training programs as processes of their own, forked from one that has imported what they need.

The imports take as long as a tiny training. The programs are the same, and run as `python -m` runs them.
"""

import multiprocessing
import os
import runpy
import shutil
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED
from tests.waiting import PATIENCE

REWARD_SCORE = "models.reward_score"
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload([SUPERVISED, PREFERENCE, LIKELIHOOD, REWARD, REWARD_SCORE])


def start_program(module: str, config: Path) -> BaseProcess:
    """Start `python -m MODULE CONFIG`; what it prints goes to a file beside the configuration."""
    process = _context.Process(target=_main, args=(module, str(config), str(_printed(config))))
    process.start()
    return process


def run_program(module: str, config: Path) -> str:
    """Run `python -m MODULE CONFIG` to its end; return what it printed."""
    process = start_program(module, config)
    process.join(PATIENCE)
    printed = _printed(config).read_text()
    assert process.exitcode == 0, printed[-3000:]
    return printed


def _printed(config: Path) -> Path:
    return config.with_suffix(".out")


def _main(module: str, config: str, printed: str) -> None:
    with open(printed, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [module, config]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
