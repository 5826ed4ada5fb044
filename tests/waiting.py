"""Waiting for what another process does."""

import os
import time
from collections.abc import Callable
from typing import Any

import psutil

# Machines differ several times over in speed: only what hangs is to reach this limit, in seconds.
PATIENCE = float(os.environ.get("AUTODIDACT_TEST_PATIENCE", "1800"))


def eventually(
    holds: Callable[[], Any],
    message: Callable[[], str] | str = "it did not come about",
    seconds: float = PATIENCE,
    pause: float = 0.05,
) -> None:
    """Wait until something holds; look again after every `pause`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, message if isinstance(message, str) else message()
        time.sleep(pause)


def wait_gone(pid: int, seconds: float = 15) -> None:
    """Wait until a stage's program has ended; it has to soon after its run."""
    eventually(lambda: not psutil.pid_exists(pid), "the stage's program outlived the run", seconds)
