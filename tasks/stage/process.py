"""Starting a heavy stage: a supervised child process whose output goes to the log and to the run's logger.

The supervisor (supervisor.py) ensures that no process of the child survives this one. This file starts it, forwards
its output and turns a failure into an error that says where to look.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.errors import AutodidactError, RunFailedError
from data.text import visible
from tasks.stage.environment import child_environment
from tasks.stage.noise import is_noise

SUPERVISOR = Path(__file__).with_name("supervisor.py")
GRACE_SECONDS = 5.0
LINES_SHOWN, LONGEST_LINE = 20, 1 << 16  # bytes; longer lines are split
_guards: list[subprocess.Popen[bytes]] = []


class ChildError(RunFailedError):
    """A stage's program failed; the message shows how it ended and the last lines of its log."""


class StillRunningError(AutodidactError):
    """A program started by an earlier process of this run is still running."""


def run_child(
    command: Sequence[str],
    log_path: Path,
    lock: Path,
    logger: logging.Logger | logging.LoggerAdapter[Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end under supervision.

    Args:
        command: the program and its arguments.
        log_path: the complete output is appended to it.
        lock: a file that is locked as long as any process of the program runs (see `await_children`).
        logger: gets the output line by line, without noise (see `tasks.stage.noise`); a progress bar's carriage returns
            are dropped.
        environment: variables on top of this process's own.

    Raises:
        ChildError: the program ended with a nonzero exit code, or by a signal.
    """
    child = subprocess.Popen(
        [sys.executable, str(SUPERVISOR), str(lock), str(GRACE_SECONDS), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=child_environment(environment),
    )
    assert child.stdin is not None and child.stdout is not None
    last: deque[str] = deque(maxlen=LINES_SHOWN)
    try:
        with log_path.open("ab", buffering=0) as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            read = child.stdout.readline
            for raw in iter(lambda: read(LONGEST_LINE), b""):
                log.write(raw)
                line = visible(raw.decode(errors="replace").rstrip("\n").rsplit("\r", 1)[-1].rstrip())
                if line:
                    last.append(line)
                    if not is_noise(line):
                        logger.info(line)
        code = child.wait()
    finally:
        # Also after an error or a cancellation: closing the lifeline ends the child.
        child.stdin.close()
        try:
            child.wait(timeout=GRACE_SECONDS + 10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        child.stdout.close()
    if code != 0:
        raise ChildError(
            f"{' '.join(command)} {_describe_exit(code)}.",
            "The last lines of its log:\n" + "".join(f"  {line}\n" for line in last),
            f"The complete log is {log_path}. Run the same command again to continue from here.",
        )


def end_with_this_process(pid: int) -> None:
    """Ensure that a child started by a library does not outlive this process, however it ends."""
    script = f"read _; kill {pid} && sleep {GRACE_SECONDS} && kill -KILL {pid}"
    # The guard's input is its lifeline: nothing is ever written to it, and it closes when this process ends.
    _guards.append(
        subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    )


def _describe_exit(code: int) -> str:
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        name = signal.Signals(number).name
        hints = {"SIGKILL": " (is the machine out of memory?)", "SIGBUS": " (is /dev/shm or a disk full?)"}
        return f"was ended by {name}{hints.get(name, '')}"
    return f"failed with exit code {code}"


def await_children(lock: Path, wait_seconds: float = 60.0) -> None:
    """Wait until no program started under this lock by an earlier, killed process is running.

    Raises:
        StillRunningError: one is still running after `wait_seconds`.
    """
    deadline = time.monotonic() + wait_seconds
    with lock.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StillRunningError(
                        f"A program of an earlier start of this run is still running after {wait_seconds:.0f} s.",
                        what_next=f"Find it with `fuser {lock}` and end it, then run the same command again.",
                    ) from None
                time.sleep(0.1)
