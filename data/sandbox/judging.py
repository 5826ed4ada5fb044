"""Judging a program from outside: what it answers or prints is compared where it cannot reach."""

import json
import math
import os
import select
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Any

from data.sandbox.isolation import IsolationError, Limits, started
from data.sandbox.values import BROKEN, FAILED, PASSED

TIMEOUT = "timeout"
TOLERANCE = 1e-6  # of numbers with a decimal point, relative or absolute
LONGEST_VERDICT = 10_000


@dataclass(frozen=True)
class Judged:
    """What became of a candidate.

    Attributes:
        outcome: "passed"; "failed"; "timeout"; "broken" if the tests are, which says nothing of the candidate.
        why: in words, unless it passed.
    """

    outcome: str
    why: str = ""


def judge_by_tests(code: str, prelude: str, tests: str, names: Sequence[str], limits: Limits) -> Judged:
    """Run tests that call a candidate. It runs in one sandbox and they in another; only data pass between them.

    Args:
        prelude: code that the tests need and that is not the candidate's.
        names: names by which the tests call the candidate although the prelude has them too. What nothing defines is
            looked for in the candidate anyway.

    Raises:
        IsolationError: the tests could not be run shut in.
    """
    deadline = time.monotonic() + limits.seconds
    none = subprocess.DEVNULL
    with ExitStack() as stack:
        (teller, told), (grader, verdict), (asking, answering) = (stack.enter_context(_pair()) for _ in range(3))
        candidate = started("candidate.py", limits, [told.fileno(), answering.fileno()], none, none)
        tester = started("tester.py", limits, [verdict.fileno(), asking.fileno()], none, none)
        stack.enter_context(candidate)
        stack.enter_context(tester)
        for theirs in (told, answering, verdict, asking):
            theirs.close()
        _tell(teller, code)
        _tell(grader, {"prelude": prelude, "tests": tests, "names": list(names)})
        said = _line(grader, deadline)
    if said is None:
        return Judged(TIMEOUT, f"it took longer than {limits.seconds:g} s")
    try:
        reply = json.loads(said)
        if reply["outcome"] not in (PASSED, FAILED, BROKEN):
            raise ValueError(reply)
        return Judged(reply["outcome"], str(reply["why"]))
    except (ValueError, TypeError, KeyError):
        raise IsolationError(f"The program that runs the tests ended without a verdict; it said {said!r}.") from None


def judge_by_output(code: str, cases: Sequence[tuple[str, str]], limits: Limits) -> Judged:
    """Run a candidate as a script, once for each text that it reads, and compare what it prints.

    Words have to be equal, whatever the white space between them; numbers with a decimal point may differ by 1e-6.

    Args:
        cases: what it reads from standard input, and what it has to print.
        limits: for each run.

    Raises:
        IsolationError: it could not be run shut in.
    """
    for number, (given, expected) in enumerate(cases, start=1):
        outcome, why, printed = _run_script(code, given, limits)
        if outcome == PASSED and not _same_words(printed.decode(errors="replace").split(), expected.split()):
            outcome, why = FAILED, "it printed something else"
        if outcome != PASSED:
            return Judged(outcome, f"case {number} of {len(cases)}: {why}")
    return Judged(PASSED)


def _run_script(code: str, given: str, limits: Limits) -> tuple[str, str, bytes]:
    deadline = time.monotonic() + limits.seconds
    printed = b""
    with _pair() as (teller, told), TemporaryFile() as source:
        source.write(given.encode())
        source.seek(0)
        with started("candidate.py", limits, [told.fileno()], source, subprocess.PIPE) as process:
            told.close()
            _tell(teller, code)
            assert process.stdout is not None
            with process.stdout as output:
                while len(printed) <= limits.output and (block := _block(output.fileno(), deadline)):
                    printed += block
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()) if len(printed) <= limits.output else 0)
            code_ = process.poll()
    if len(printed) > limits.output:
        return FAILED, f"it printed more than {limits.output:,} bytes", printed
    if code_ is None:
        return TIMEOUT, f"it took longer than {limits.seconds:g} s", printed
    return (PASSED, "", printed) if code_ == 0 else (FAILED, f"it ended with exit code {code_}", printed)


def _same_words(printed: list[str], expected: list[str]) -> bool:
    return len(printed) == len(expected) and all(map(_same_word, printed, expected))


def _same_word(printed: str, expected: str) -> bool:
    if printed == expected or "." not in expected:
        return printed == expected
    try:
        ours, theirs = float(printed), float(expected)
    except ValueError:
        return False
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _tell(channel: socket.socket, message: Any) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):  # whoever is gone will be missed soon enough
        channel.sendall(json.dumps(message).encode() + b"\n")


def _line(channel: socket.socket, deadline: float) -> bytes | None:
    """A line, or what there was before the other side was gone; None if it takes too long."""
    said = b""
    while not said.endswith(b"\n") and len(said) < LONGEST_VERDICT:
        block = _block(channel.fileno(), deadline)
        if block is None:
            return None
        if not block:
            break
        said += block
    return said


def _block(descriptor: int, deadline: float) -> bytes | None:
    """What can be read, empty at the end; None if nothing comes in time."""
    ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
    return os.read(descriptor, 65536) if ready else None
