"""Processes of their own, forked from one that has imported what they need: imports take longer than most tests.

All forks share a seed of string hashes: what must not depend on it is compared with a process that was started anew.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import TimeoutExpired
from typing import Any

from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED

GENERATE, JUDGE, REWARD_SCORE = "models.generate", "models.judge", "models.reward_score"
_PROGRAMS = [SUPERVISED, PREFERENCE, LIKELIHOOD, REWARD, REWARD_SCORE, GENERATE, JUDGE]
_ENGINE = ["vllm.engine.arg_utils", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"]
_FLOWS = ["flows.rest_em", "flows.spin", "tasks.report", "mlflow"]
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload([*_PROGRAMS, *_ENGINE, *_FLOWS])


class Fork:
    """A call of a function in a process that leads a session and a process group; used as `subprocess.Popen` is."""

    def __init__(self, function: Callable[..., None], *arguments: Any, environment: Mapping[str, str]) -> None:
        self._process = _context.Process(target=_call, args=(function, arguments, dict(environment)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired(str(self._process), timeout or 0)
        return code


def kill_group(process: Any) -> None:
    """Kill a process (a `Fork`, or a `Popen` that leads a session) and its process group, if they have not ended."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:  # a fork does not lead its group from the start
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _call(function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)
