"""Compare two mathematical expressions in a child process that can be killed. `math_worker` does the comparison.

Only a separate process gives a time limit that works from any thread and on code that never returns to Python.
"""

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path

from data.errors import RunFailedError

WORKER = Path(__file__).with_name("math_worker.py")
# Importing Math-Verify takes half a second; a busy machine or a cold disk takes longer.
START_SECONDS = 120.0


class MathCheckError(RunFailedError):
    """The comparison itself failed; that says nothing about the answer."""


class MathCheckTimeoutError(MathCheckError):
    """The comparison took too long."""


class MathChecker:
    """One child process, started at the first comparison, replaced when it dies or is killed.

    Threads may share a checker; they take turns. `command` is the program to run instead of the worker; the limit in
    seconds is appended to it.
    """

    def __init__(self, limit_seconds: float = 5.0, command: list[str] | None = None) -> None:
        self.limit_seconds = limit_seconds
        # -P: the worker's own directory must not be first in its search path.
        self._command = [*(command or [sys.executable, "-P", str(WORKER)]), str(limit_seconds)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def compare(self, reference: str, answer: str, approximately: bool = False) -> str:
        """Return 'equal', 'different', 'bad reference' or 'bad answer', see `math_worker.compare`.

        Raises:
            MathCheckTimeoutError: no reply within `limit_seconds`; the worker was killed.
            MathCheckError: the worker could not start, died, or could not carry out the comparison.
        """
        with self._lock:
            process = self._running()
            try:
                outcome, detail = self._ask(process, json.dumps([reference, answer, approximately]), self.limit_seconds)
            except BaseException:  # an interrupted exchange would leave its reply for the next question
                self._kill()
                raise
        if outcome == "error":
            raise MathCheckError(detail)
        return str(outcome)

    def close(self) -> None:
        """End the worker, if any. The next comparison starts another."""
        with self._lock:
            self._kill()

    @property
    def pid(self) -> int | None:
        """The worker's process id, None if there is none."""
        return self._process.pid if self._process else None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        # Errors come back as replies. An inherited stderr would block a caller that reads ours to its end.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        try:
            outcome, detail = self._ask(self._process, "", START_SECONDS)
        except BaseException:
            self._kill()
            raise
        if outcome != "ready":
            self._kill()
            raise MathCheckError(f"the Math-Verify worker did not start: {detail}")
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], question: str, seconds: float) -> tuple[str, str]:
        assert process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + seconds
        received = b""
        try:
            if question:
                process.stdin.write(question.encode() + b"\n")
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not received.endswith(b"\n"):
                    if not selector.select(max(0.0, deadline - time.monotonic())):
                        raise MathCheckTimeoutError(f"no reply within {seconds:g} s")
                    chunk = os.read(process.stdout.fileno(), 65536)
                    if not chunk:
                        raise BrokenPipeError
                    received += chunk
        except BrokenPipeError:
            raise MathCheckError(f"the Math-Verify worker died ({_ending(process)})") from None
        outcome, detail = json.loads(received)
        return outcome, detail

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return "it closed its output"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
