"""Calls whose arguments and results are stored as JSON, as APPS does. Part of the tests' program.

JSON has no tuples and only text keys, and APPS wraps most results in a list of one.
"""

from __future__ import annotations

import json
import math

from remote import plain

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def check(function: Callable[[], Any], cases: str, tolerance: float) -> None:
    """Call a function, made anew for each case, and compare what it returns.

    Args:
        cases: JSON: for each case the arguments and the result.

    Raises:
        AssertionError: another result is wanted.
    """
    for arguments, wanted in json.loads(cases):
        found = plain(function()(*map(_with_numbers, arguments)))
        if not (_same(found, wanted, tolerance) or _same([found], wanted, tolerance)):
            raise AssertionError("it returned something else")


def _same(found: Any, wanted: Any, tolerance: float) -> bool:
    if isinstance(wanted, list):
        alike = type(found) in (list, tuple) and len(found) == len(wanted)
        return alike and all(_same(*pair, tolerance) for pair in zip(found, wanted, strict=True))
    if isinstance(wanted, dict) and type(found) is dict:
        found = {key if isinstance(key, str) else json.dumps(key): value for key, value in found.items()}
        return found.keys() == wanted.keys() and all(_same(found[key], wanted[key], tolerance) for key in wanted)
    if isinstance(found, float) and isinstance(wanted, int | float):
        return math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance)
    return bool(found == wanted)


def _with_numbers(value: Any) -> Any:
    """A dictionary whose keys are texts of numbers with these numbers as its keys, as it was before it was stored."""
    keys = isinstance(value, dict) and all(key.lstrip("-").isdecimal() for key in value)
    return {int(key): item for key, item in value.items()} if keys else value
