"""Runs programs as processes of their own, forked from one that has imported what they need.

The imports take as long as what a tiny model is asked to do. All forks share a seed of string hashes: what must not
depend on it is compared with a program that was started anew.
"""

import logging
import multiprocessing
import os
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import tasks.adapter
import tasks.sample
import tasks.train
from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED
from tasks.environment import SHARED_CPU, child_environment
from tasks.process import ChildError
from tests.waiting import PATIENCE

GENERATE, JUDGE, MERGE, REWARD_SCORE = "models.generate", "models.judge", "models.merge", "models.reward_score"
TRAINING = [SUPERVISED, PREFERENCE, LIKELIHOOD, REWARD, REWARD_SCORE, MERGE]
ENGINE = ["vllm.engine.arg_utils", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"]
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload([*TRAINING, GENERATE, JUDGE, *ENGINE])


@contextmanager
def started(module: str, config: Path) -> Iterator[BaseProcess]:
    """`python -m MODULE CONFIG` in a process, which is killed if it has not ended."""
    environment = child_environment(SHARED_CPU)
    process = _context.Process(target=_main, args=(module, str(config), str(_printed(config)), environment))
    process.start()
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
    """What the function of that name does, for a command `python -m MODULE CONFIG`, without a supervisor."""
    _, option, module, config = command
    assert option == "-m"
    try:
        log_path.write_text(run_program(module, Path(config)))
    except AssertionError as error:
        raise ChildError(str(error)) from error


def _main(module: str, config: str, file: str, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    with open(file, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = [module, config]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
