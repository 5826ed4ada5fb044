"""Tests that have to be collected: functions and classes as pytest names them, and `unittest` classes."""

from __future__ import annotations

import sys
from types import FunctionType

from peer import CannotError

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

COROUTINE = 0x80  # the flag of its code


class UnknownError(CannotError):
    """Tests of an unsupported kind."""


def offer(tests: str) -> None:
    """Make `unittest.main` wait for `run`, and install a stand-in for tests that import `pytest`."""
    if "unittest" in tests:
        import unittest

        unittest.main = later  # type: ignore[assignment, misc]
    if "pytest" in tests:
        import pytest_stand_in

        sys.modules["pytest"] = pytest_stand_in.module()


def run(namespace: dict[str, Any]) -> None:
    """Run the collected tests.

    Raises:
        AssertionError: a test failed.
        UnknownError: a test needs something unsupported.
    """
    for name, value in [*namespace.items()]:
        if type(value) is FunctionType and name.startswith("test"):
            _run_function(value)
        elif isinstance(value, type) and value.__module__ == namespace["__name__"]:
            if "unittest" in sys.modules and issubclass(value, sys.modules["unittest"].TestCase):
                _run_case(value)
            elif name.startswith("Test"):
                _run_class(value)


def later(*_: Any, **__: Any) -> None:
    """Replacement of `unittest.main` and `pytest.main`: the tests are run once all are known."""


def _run_class(kind: type) -> None:
    for name in dir(kind):
        if name.startswith("test"):
            instance = kind()
            getattr(instance, "setup_method", later)()
            _run_function(getattr(instance, name), bound=1)
            getattr(instance, "teardown_method", later)()


def _run_case(case: Any) -> None:
    import unittest

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    if result.skipped or result.expectedFailures:
        raise UnknownError("a test that is skipped or expected to fail proves nothing")
    problems = [said for _, said in (*result.failures, *result.errors)]
    if problems or result.unexpectedSuccesses:
        raise AssertionError((problems or ["a test passed unexpectedly"])[0].strip().splitlines()[-1])


def _run_function(function: Any, bound: int = 0) -> None:
    code = function.__code__
    needed = code.co_varnames[bound : code.co_argcount - len(function.__defaults__ or ())]
    for given in _cases(getattr(function, "cases", [])):
        if not {*needed} <= given.keys() or code.co_flags & COROUTINE:
            raise UnknownError(f"{function.__name__} needs fixtures or an event loop")
        function(**given)


def _cases(marks: list[tuple[list[str], list[Any]]]) -> Iterator[dict[str, Any]]:
    """The arguments of each call: every combination of the rows of its marks."""
    if not marks:
        yield {}
        return
    (names, rows), *others = marks
    for row in rows:
        values = [row] if len(names) == 1 else list(row)
        for rest in _cases(others):
            yield {**dict(zip(names, values, strict=True)), **rest}
