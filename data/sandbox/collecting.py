"""Tests that have to be collected: functions and classes as pytest names them, and the classes of `unittest`.

Of pytest there is what tests of a function need: `raises`, `approx`, `mark.parametrize`, `fail`. What else they ask of
it cannot be had.
"""

import math
import re
import sys
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, ModuleType
from typing import Any

from peer import CannotError


class UnknownError(CannotError):
    """Tests of a kind that is not known here."""


def offer() -> None:
    """Put a `pytest` where the tests import it, and have `unittest.main` and `pytest.main` wait for `run`."""
    module = ModuleType("pytest")
    module.__dict__.update(
        raises=_raises, approx=Approx, fail=_fail, mark=Mark(), main=_later, param=_unknown("param"),
        __getattr__=lambda name: _unknown(name)(),
    )  # fmt: skip
    sys.modules["pytest"] = module
    unittest.main = _later  # type: ignore[assignment, misc]


def run(namespace: dict[str, Any]) -> None:
    """Run what there is to collect.

    Raises:
        AssertionError: a test failed.
        UnknownError: a test needs what is not offered here.
    """
    for name, value in [*namespace.items()]:
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            _run_case(value)
        elif isinstance(value, type) and name.startswith("Test") and value.__module__ == namespace["__name__"]:
            for method in [name for name in vars(value) if name.startswith("test")]:
                instance = value()
                getattr(instance, "setup_method", lambda: None)()
                _run_function(getattr(instance, method))
        elif isinstance(value, FunctionType) and name.startswith("test"):
            _run_function(value)


def _run_case(case: type[unittest.TestCase]) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    if result.skipped or result.expectedFailures:
        raise UnknownError("a test that is skipped, or expected to fail, says nothing")
    problems = [said for _, said in (*result.failures, *result.errors)]
    if problems or result.unexpectedSuccesses:
        raise AssertionError((problems or ["a test passed unexpectedly"])[0].strip().splitlines()[-1])


def _run_function(function: Any) -> None:
    code = function.__code__
    needed = code.co_varnames[: code.co_argcount][1 if hasattr(function, "__self__") else 0 :]
    for given in _cases(getattr(function, "cases", [])):
        lacking = [*needed][: len(needed) - len(function.__defaults__ or ())]
        if any(name not in given for name in lacking) or code.co_flags & 0x80:  # a coroutine
            raise UnknownError(f"{function.__name__} needs fixtures or an event loop")
        function(**given)


def _cases(marks: list[tuple[list[str], list[Any]]]) -> Iterator[dict[str, Any]]:
    if not marks:
        yield {}
        return
    (names, rows), *others = marks
    for row in rows:
        values = [row] if len(names) == 1 else list(row)
        for rest in _cases(others):
            yield {**dict(zip(names, values, strict=True)), **rest}


class Mark:
    """`pytest.mark`."""

    def parametrize(self, names: Any, rows: Any, **_: Any) -> Callable[[Any], Any]:
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def marked(function: Any) -> Any:
            function.cases = [*getattr(function, "cases", []), (names, list(rows))]
            return function

        return marked

    def __getattr__(self, name: str) -> Any:
        return _unknown(f"mark.{name}")()


class Approx:
    """`pytest.approx`: numbers, and lists, tuples and dictionaries of them, equal within a millionth."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self.expected, self.nan_ok = expected, nan_ok
        self.abs = 1e-12 if abs is None else abs
        self.rel = (0.0 if abs is not None else 1e-6) if rel is None else rel

    def __eq__(self, found: Any) -> bool:
        return self._same(found, self.expected)

    def _same(self, found: Any, expected: Any) -> bool:
        if isinstance(expected, list | tuple):
            return (
                isinstance(found, list | tuple)
                and len(found) == len(expected)
                and all(map(self._same, found, expected))
            )
        if isinstance(expected, dict):
            return isinstance(found, dict) and found.keys() == expected.keys() and all(
                self._same(found[key], value) for key, value in expected.items()
            )  # fmt: skip
        if type(found) in (int, float) and type(expected) in (int, float):
            both_nan = math.isnan(found) and math.isnan(expected)
            return self.nan_ok if both_nan else math.isclose(found, expected, rel_tol=self.rel, abs_tol=self.abs)
        return bool(found == expected)


class Raised:
    """What `pytest.raises` gives."""

    value: Any = None

    @property
    def type(self) -> Any:
        return type(self.value)


def _raises(expected: Any, *function: Any, match: str | None = None, **named: Any) -> Any:
    if function:
        with _raising(expected, match) as raised:
            function[0](*function[1:], **named)
        return raised
    return _raising(expected, match)


@contextmanager
def _raising(expected: Any, match: str | None) -> Iterator[Raised]:
    raised = Raised()
    try:
        yield raised
    except expected as error:
        raised.value = error
        if match is not None and not re.search(match, str(error)):
            raise AssertionError(f"the exception does not match {match!r}") from None
    else:
        raise AssertionError(f"nothing raised {expected}")


def _fail(reason: str = "", **_: Any) -> None:
    raise AssertionError(reason)


def _later(*_: Any, **__: Any) -> None:
    pass


def _unknown(name: str) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise UnknownError(f"pytest.{name} is not offered here")

    return refuse
