"""Judge a program from outside: what it answers or prints is compared where it cannot interfere."""

import json
import math
import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from typing import Any

from data.sandbox.isolation import IsolationError, Limits, started
from data.sandbox.naming import JUDGES, Naming, defined, naming
from data.sandbox.sharing import shared
from data.sandbox.values import BROKEN, CANNOT, FAILED, PASSED

TIMEOUT = "timeout"
TOLERANCE = 1e-6  # for numbers with a decimal point, relative or absolute
START_SECONDS = 0.5  # allowed for starting a sandbox
LONGEST_VERDICT = 10_000
LONGEST_REASON = 1_000


@dataclass(frozen=True)
class Judged:
    """The result for a candidate.

    Attributes:
        outcome: "passed"; "failed"; "timeout"; "broken" if the tests are broken, and "cannot" if they ask for what
            cannot be decided from outside: both say nothing about the candidate.
        why: the reason, unless it passed. The candidate can influence this text, so it is kept short, and unprintable
            characters are escaped, including lone surrogates, which cannot be written to a file.
    """

    outcome: str
    why: str = ""

    def __post_init__(self) -> None:
        signs = (
            sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in self.why[:LONGEST_REASON]
        )
        object.__setattr__(self, "why", "".join(signs)[:LONGEST_REASON])


def judge_by_tests(
    code: str, prelude: str, tests: str, required: Sequence[str], limits: Limits, supplied: str = ""
) -> Judged:
    """Run tests that call a candidate. Each runs in its own sandbox; only data pass between them.

    For an honest candidate the outcome is that of Python running candidate and tests as one program. Names that the
    tests use and nothing defines are supplied by the candidate, as far as `naming` allows.

    Args:
        prelude: code that the tests need and that is not the candidate's.
        required: names that the candidate must define, even if the prelude or Python has them too.
        supplied: code that runs before the candidate, in its namespace.

    Raises:
        IsolationError: the tests could not be run sandboxed.
    """
    asked = naming(prelude, tests, [*required], code)
    told = {
        "prelude": prelude,
        "tests": tests,
        "required": [*required],
        "names": asked.names,
        "library": asked.library,
    }
    deadline = time.monotonic() + limits.seconds
    with ExitStack() as stack:
        (code_read, code_write), (tests_read, tests_write), (verdict_read, verdict_write), asking, answering = (
            stack.enter_context(_pipe()) for _ in range(5)
        )
        of_candidate = (code_read, asking[0], answering[1])
        of_tester = (tests_read, verdict_write, answering[0], asking[1])
        for program, theirs in (("candidate.py", of_candidate), ("tester.py", of_tester)):
            stack.enter_context(started(program, limits, [end.fileno() for end in theirs]))
        for end in (*of_candidate, *of_tester):
            end.close()
        _tell(code_write, {"code": code, "supplied": supplied})
        _tell(tests_write, told)
        said = _line(verdict_read, deadline)
    if said is None:
        return Judged(TIMEOUT, f"it took longer than {limits.seconds:g} s")
    try:
        reply = json.loads(said)
        if reply["outcome"] not in (PASSED, FAILED, BROKEN, CANNOT):
            raise ValueError(reply)
        judged = Judged(reply["outcome"], str(reply["why"]))
    except (ValueError, TypeError, KeyError):
        raise IsolationError(
            f"The program that runs the tests ended without a verdict; its output was {said!r}.",
            what_next="Check whether the machine is out of memory, then run the same command again.",
        ) from None
    if judged.outcome == FAILED and (what := _shared(code, f"{prelude}\n{tests}", asked)):
        return Judged(CANNOT, f"with {what!r}, the tests rely on what they and the program do not share: {judged.why}")
    return judged


def _shared(code: str, tests: str, asked: Naming) -> str:
    """What an honest program may fail for: see `sharing`, or a name that one has, and the other uses."""
    program, theirs = defined(code), defined(tests)
    if program is None or theirs is None:
        return ""
    refused = {name for name, module in asked.library.items() if module} & program.makes - JUDGES
    return shared(tests, asked.names) or min(program.lacks & theirs.makes | refused, default="")


def judge_by_output(code: str, cases: Sequence[tuple[str, str]], limits: Limits, supplied: str = "") -> Judged:
    """Run a candidate as a script, once per input, and compare what it prints.

    Words have to be equal, whatever the white space between them; numbers with a decimal point may differ by 1e-6.

    Args:
        cases: the standard input, and the expected output.
        limits: for each run; all of them together have twice the time, plus a start for each.
        supplied: code that runs before the candidate, in its namespace.

    Raises:
        IsolationError: it could not be run sandboxed.
    """
    end = time.monotonic() + 2 * limits.seconds + START_SECONDS * len(cases)
    for number, (given, expected) in enumerate(cases, start=1):
        at = f"case {number} of {len(cases)}"
        try:
            stdin = given.encode()
        except UnicodeEncodeError as error:
            return Judged(BROKEN, f"{at}: no program can read its input: {error}")
        left = max(0.0, end - time.monotonic())
        output = max(limits.output, 4 * len(expected))  # bytes; a character takes up to four
        within = replace(limits, seconds=min(limits.seconds, left), output=output)
        outcome, why, printed = _run_script({"code": code, "supplied": supplied}, stdin, within)
        if outcome == TIMEOUT:
            why = f"{'it' if left >= limits.seconds else 'with all before it'} took longer than {limits.seconds:g} s"
        if outcome == PASSED and not _same_words(printed.decode(errors="replace").split(), expected.split()):
            outcome, why = FAILED, "it printed something else"
        if outcome != PASSED:
            return Judged(outcome, f"{at}: {why}")
    return Judged(PASSED)


def _run_script(told: dict[str, str], given: bytes, limits: Limits) -> tuple[str, str, bytes]:
    deadline = time.monotonic() + limits.seconds
    printed = bytearray()
    with (
        _pipe() as (code_read, code_write),
        started("candidate.py", limits, [code_read.fileno()], given, subprocess.PIPE) as process,
    ):
        code_read.close()
        _tell(code_write, told)
        assert process.stdout is not None
        with process.stdout as output:
            while len(printed) <= limits.output and (block := _block(output.fileno(), deadline)):
                printed += block
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()) if len(printed) <= limits.output else 0)
        code = process.poll()
    if len(printed) > limits.output:
        return FAILED, f"it printed more than {limits.output:,} bytes", bytes(printed)
    if code is None:
        return TIMEOUT, "", bytes(printed)
    return (PASSED, "", bytes(printed)) if code == 0 else (FAILED, f"it ended with exit code {code}", bytes(printed))


def _same_words(printed: list[str], expected: list[str]) -> bool:
    return len(printed) == len(expected) and all(map(_same_word, printed, expected))


def _same_word(printed: str, expected: str) -> bool:
    if printed == expected or "." not in expected or "_" in printed:  # which Python accepts inside a number
        return printed == expected
    try:
        ours, theirs = float(printed), float(expected)
    except ValueError:
        return False
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """Both ends of a pipe, to read and to write. Through a socket a program could see this machine's network."""
    reading, writing = os.pipe()
    with FileIO(reading, "r") as end, FileIO(writing, "w") as start:
        yield end, start


def _tell(channel: FileIO, message: Any) -> None:
    left = memoryview(json.dumps(message).encode() + b"\n")
    with suppress(BrokenPipeError):  # a missing reader is noticed soon enough
        while left:
            left = left[channel.write(left) :]


def _line(channel: FileIO, deadline: float) -> bytes | None:
    """A line, or what was read before the other side closed; None if it takes too long."""
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
    """The available bytes, empty at the end; None if nothing comes in time."""
    poll = select.poll()  # select does not support descriptors above 1023
    poll.register(descriptor, select.POLLIN)
    ready = poll.poll(1000 * max(0.0, deadline - time.monotonic()))
    return os.read(descriptor, 65536) if ready else None
