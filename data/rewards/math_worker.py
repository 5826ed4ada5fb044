"""The program that compares two mathematical expressions with Math-Verify. It runs as a child of `math_checker`.

Nothing here trusts the text: simplifying an expression may take minutes or all memory. The parent kills this program
at its time limit; if the parent is dead, the kernel does. It reads one JSON list [reference, answer] or
[reference, answer, true] per line and writes one JSON list [outcome, detail] per line; end of input ends it.
Run: python math_worker.py SECONDS
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

MEMORY_BYTES = 2 * 1024**3
# Exact expressions are evaluated with so many digits, and may differ by rounding only.
DIGITS = 60
EXACT = 1e-50
GRACE_SECONDS = 1.0


def main() -> None:
    limit_seconds = float(sys.argv[1])
    # Ctrl-C reaches the whole process group; this program ends when its parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action, not a handler: Python would run a handler only after a long multiplication has returned.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # output of a library must not mix with the replies
        logging.disable(logging.CRITICAL)
        print(json.dumps(_import_math_verify()), file=replies, flush=True)
        for request in sys.stdin:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds + GRACE_SECONDS)
            reply = _guarded_compare(*json.loads(request))
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(reply), file=replies, flush=True)


def _import_math_verify() -> tuple[str, str]:
    try:
        import math_verify  # noqa: F401
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    return "ready", ""


def _guarded_compare(reference: str, answer: str, approximately: bool = False) -> tuple[str, str]:
    try:
        return compare(reference, answer, approximately), ""
    except MemoryError:
        return "error", f"the comparison needs more than {MEMORY_BYTES // 1024**2} MiB of memory"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"[:300]


def compare(reference: str, answer: str, approximately: bool = False) -> str:
    """Return 'equal', 'different', 'bad reference' or 'bad answer' (one that cannot be read as mathematics).

    Math-Verify treats numbers below 10⁻¹⁵ as 0, so what it calls equal is compared again with a relative tolerance.

    Args:
        approximately: whether values within one percent are equal, as in 'π ≈ 3.14'.

    Source: Math-Verify, https://github.com/huggingface/Math-Verify
    """
    from math_verify import verify

    if not (gold := _parse(reference)):
        return "bad reference"
    if not (given := _parse(answer)):
        return "bad answer"
    gold, given = _with_imaginary_unit(gold), _with_imaginary_unit(given)
    if approximately:
        return "equal" if _agree(gold[0], given[0], 1e-2) else "different"
    equal = verify(gold, given, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True)
    if not equal:
        return "equal" if _is_letter(gold[0], given[0]) else "different"
    return "equal" if _agree(gold[0], given[0], EXACT) else "different"


def _is_letter(letter: Any, expression: Any) -> bool:
    """Whether the reference is a letter, and the answer the same. Math-Verify would not simplify the answer."""
    from sympy import Expr

    return bool(getattr(letter, "is_Symbol", False) and isinstance(expression, Expr) and expression.doit() == letter)


def _with_imaginary_unit(parsed: list[Any]) -> list[Any]:
    """Replace i, which Math-Verify treats like any other letter, by the imaginary unit."""
    from sympy import Basic, I

    def replaced(expression: Any) -> Any:
        letters = expression.free_symbols if isinstance(expression, Basic) else ()
        named = {letter: I for letter in letters if letter.name == "i"}
        return expression.subs(named) if named else expression

    return [replaced(expression) for expression in parsed]


def _agree(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two expressions that Math-Verify calls equal are equal relative to their size. True if undecidable."""
    from sympy import Basic, FiniteSet, Interval, MatrixBase, Tuple

    one, other = _without_name(one, other), _without_name(other, one)
    if one == other:
        return True
    if isinstance(one, FiniteSet) and isinstance(other, FiniteSet):
        return all(any(_agree(mine, yours, tolerance) for yours in other) for mine in one)
    kinds: dict[Any, Any] = {Interval: lambda pair: (pair.start, pair.end), Tuple: tuple, MatrixBase: tuple}
    for kind, members in kinds.items():
        if isinstance(one, kind) and isinstance(other, kind):
            return all(_agree(*pair, tolerance) for pair in zip(members(one), members(other), strict=False))
    if not isinstance(one, Basic) or not isinstance(other, Basic):
        return True
    if one.is_number and other.is_number:
        return _near(one, other, tolerance)
    return _agree_at_a_place(one, other, tolerance)


def _without_name(one: Any, other: Any) -> Any:
    """The value of 'x=5' beside a value without a name, or with the same."""
    from sympy import Equality, Symbol

    if not isinstance(one, Equality) or not isinstance(one.lhs, Symbol):
        return one
    return one if isinstance(other, Equality) and other.lhs != one.lhs else one.rhs


def _agree_at_a_place(one: Any, other: Any, tolerance: float) -> bool:
    """The same for expressions with letters, where each letter stands for some number."""
    from sympy import Add, Expr, Mul, Pow, Rational, Symbol

    if not all(isinstance(each, Expr) and _consists_of(each, (Add, Mul, Pow, Symbol)) for each in (one, other)):
        return True
    letters = sorted(one.free_symbols | other.free_symbols, key=str)
    place = {letter: Rational(7 + 2 * at, 5) for at, letter in enumerate(letters)}
    return _near(one.subs(place), other.subs(place), tolerance)


def _consists_of(expression: Any, kinds: tuple[Any, ...]) -> bool:
    from sympy import preorder_traversal

    return all(part.is_number or isinstance(part, kinds) for part in preorder_traversal(expression))


def _near(one: Any, other: Any, tolerance: float) -> bool:
    from sympy import Float, N

    # A decimal was rounded by its writer.
    if one.has(Float) or other.has(Float):
        tolerance = max(tolerance, 1e-6)
    values = N(one, DIGITS), N(other, DIGITS)
    if not all(value.is_number for value in values) or any(value.is_finite is not True for value in values):
        return True
    largest = max(abs(value) for value in values)
    return bool(abs(values[0] - values[1]) <= tolerance * largest) or _both_zero(one, other)


def _both_zero(one: Any, other: Any) -> bool:
    return all(number == 0 or number.equals(0) for number in (one, other))


def _parse(text: str) -> list[Any]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: Math-Verify's reader of plain expressions passes text to Python's eval. First match only: otherwise
    # it would search an unreadable answer for a readable part.
    # Units off: it takes 'ab', 'c' and 'd' for units, so 2ab would equal 2.
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    parsed: list[Any] = parse(
        rf"\boxed{{{text}}}",
        [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return parsed


if __name__ == "__main__":
    main()
