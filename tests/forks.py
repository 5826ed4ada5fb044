"""Processes of their own, forked from one that has imported what they need: imports take longer than most tests.

All forks share a seed of string hashes: what must not depend on it is compared with a process that was started anew.
"""

import multiprocessing
import os
import shutil
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from typing import Any

from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED

GENERATE, JUDGE, MERGE, REWARD_SCORE = "models.generate", "models.judge", "models.merge", "models.reward_score"
_PROGRAMS = [SUPERVISED, PREFERENCE, LIKELIHOOD, REWARD, REWARD_SCORE, MERGE, GENERATE, JUDGE]
_ENGINE = ["vllm.engine.arg_utils", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"]
_FLOWS = ["flows.rest_em", "flows.spin", "tasks.report", "mlflow", "tests.flows.conftest"]
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload([*_PROGRAMS, *_ENGINE, *_FLOWS])


def fork(function: Callable[..., None], *arguments: Any, environment: Mapping[str, str]) -> BaseProcess:
    """Call a function in a process that leads a session and a process group of its own."""
    process = _context.Process(target=_call, args=(function, arguments, dict(environment)))
    process.start()
    return process


def _call(function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)
