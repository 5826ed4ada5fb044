"""The program that runs a task's tests, in its own sandbox. It has the tests and no code of the candidate.

What the tests call runs in the candidate's process; `asking` and `remote` define what comes back. Over two other pipes
it gets the tests and reports whether they passed. Run: python tester.py LIMITS TESTS VERDICT ANSWERS QUESTIONS, all but
the first being descriptors.
"""

from __future__ import annotations

import json
import resource
import sys
from types import ModuleType

sys.path.insert(0, __file__.rpartition("/")[0])

from asking import Asking
from collecting import offer, run
from peer import CannotError, Channel
from remote import Class, is_instance, is_subclass
from values import BROKEN, CANNOT, FAILED, PASSED, said

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from typing import Any


def main() -> None:
    for name, value in json.loads(sys.argv[1]).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.set_int_max_str_digits(0)
    tests, verdict, answers, questions = map(int, sys.argv[2:])
    grader = Channel(tests, verdict)
    told = grader.receive()
    outcome, why = judge(told, Channel(answers, questions))
    grader.send({"outcome": outcome, "why": why})


def judge(told: dict[str, Any], channel: Channel) -> tuple[str, str]:
    """Whether the tests passed, and if not, why."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    namespace = module.__dict__
    try:
        for name, where in told["library"].items():
            found = __import__(where or name)
            namespace[name] = getattr(found, name) if where else found
        namespace.update(type=Class, isinstance=is_instance, issubclass=is_subclass)
        exec(compile(told["prelude"], "prelude.py", "exec", dont_inherit=True), namespace)
        code = compile(told["tests"], "tests.py", "exec", dont_inherit=True)
    except BaseException as error:
        return BROKEN, said(error)
    try:
        candidate = Asking(channel)
        candidate.offer(told["names"], namespace)
    except BaseException as error:
        return FAILED, said(error)
    if lacking := [name for name in told["required"] if name not in candidate.given]:
        return FAILED, f"the program does not define {', '.join(lacking)}"
    offer(told["tests"])
    return _judged(candidate, code, namespace)


def _judged(candidate: Asking, code: Any, namespace: dict[str, Any]) -> tuple[str, str]:
    outcome, why = PASSED, ""
    try:
        exec(code, namespace)
        run(namespace)
    except CannotError as error:
        outcome, why = CANNOT, str(error)
    except BaseException as error:
        outcome, why = FAILED, said(error)
        if isinstance(error, ImportError) and error.name is not None:  # which an error of the candidate lacks here
            outcome = BROKEN
        if isinstance(error, TypeError) and candidate.has_derived():
            outcome, why = CANNOT, f"an object of a class that derives from a built-in one may be refused: {why}"
    if candidate.trouble is not None:  # even if the tests caught it
        return (CANNOT if isinstance(candidate.trouble, CannotError) else FAILED), said(candidate.trouble)
    if outcome == PASSED and not candidate.asked:
        return BROKEN, "the tests never ask the program for anything"
    return outcome, why


if __name__ == "__main__":
    main()
