"""Processes of their own, forked from one that has imported what they need: imports take longer than most tests.

All forks share a seed of string hashes: what must not depend on it is compared with a process that was started anew.
"""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
GENERATE, JUDGE, REWARD_SCORE = "models.generate", "models.asking.judge", "models.training.reward_score"
WRITE_PROMPTS = "models.asking.write_prompts"
# A process that has used a GPU cannot be forked, and importing may use it.
_context = multiprocessing.get_context("spawn" if shutil.which("nvidia-smi") else "forkserver")
_context.set_forkserver_preload(["tests.preloaded"])


class Fork:
    """A call of a function in a process that leads a session and a process group; used as `subprocess.Popen` is."""

    def __init__(self, function: Callable[..., None], *arguments: Any, environment: Mapping[str, str]) -> None:
        self._process = _context.Process(target=_call, args=(function, arguments, dict(environment)))
        # The first start is that of the process they are forked from, which would pass over what it does not find.
        with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
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
