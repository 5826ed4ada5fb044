"""The parts of pytest that tests of a function need: `raises`, `approx`, `mark.parametrize`, `fail`. No others.

There are no packages in the sandbox, and tests of one function use few of pytest's own rules.
"""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from collecting import UnknownError, later
from remote import plain


def module() -> ModuleType:
    """The stand-in module, for the tests to import."""
    made = ModuleType("pytest")
    made.__dict__.update(raises=_raises, approx=Approx, fail=_fail, mark=Mark(), main=later, __getattr__=_refuse)
    return made


class Mark:
    """`pytest.mark`."""

    def parametrize(self, names: Any, rows: Any, **_: Any) -> Callable[[Any], Any]:
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)

        def marked(function: Any) -> Any:
            function.cases = [*getattr(function, "cases", []), (names, list(rows))]
            return function

        return marked

    def __getattr__(self, name: str) -> Any:
        return _refuse(f"mark.{name}")


class Approx:
    """`pytest.approx`: numbers, and lists, tuples and dictionaries of them, equal within one millionth."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self.expected, self.nan_ok = expected, nan_ok
        self.abs = 1e-12 if abs is None else abs
        self.rel = (0.0 if abs is not None else 1e-6) if rel is None else rel

    def __eq__(self, found: Any) -> bool:
        return self._same(plain(found), self.expected)

    def _same(self, found: Any, expected: Any) -> bool:
        if isinstance(expected, list | tuple):
            return (
                type(found) in (list, tuple) and len(found) == len(expected) and all(map(self._same, found, expected))
            )
        if isinstance(expected, dict):
            return type(found) is dict and found.keys() == expected.keys() and all(
                self._same(found[key], value) for key, value in expected.items()
            )  # fmt: skip
        if type(found) in (int, float) and type(expected) in (int, float):
            both_nan = math.isnan(found) and math.isnan(expected)
            return self.nan_ok if both_nan else math.isclose(found, expected, rel_tol=self.rel, abs_tol=self.abs)
        return bool(found == expected)


class Raised:
    """The value of `pytest.raises` in a `with` statement."""

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


def _refuse(name: str) -> Any:
    if name.startswith("__"):  # which Python itself looks for
        raise AttributeError(name)
    raise UnknownError(f"pytest.{name} is not offered here")
