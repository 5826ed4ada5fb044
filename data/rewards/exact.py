r"""Exact comparison of simple mathematics, without a computer algebra system: in microseconds instead of milliseconds.

What is simple: integers, fractions, square roots of integers and powers of π, their sums, products and quotients, and
tuples and intervals of them. With √n for squarefree n and π transcendental, every such number has one form Σ q·√n·π^k
with rational q, so two of them are equal if and only if their forms are. Anything else is not decided here.

    \frac{3}{4}   5\sqrt{2}   -\frac{\sqrt{3}}{2}   \frac{2\pi}{3}   3+2\sqrt{2}   (1,\frac{1}{2})   [0,2\pi)

Not simple, since it could be read in two ways: '2 3', '3\frac{1}{2}', '1/2\pi'; and decimals, which are compared after
rounding.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import isqrt

Number = dict[tuple[int, int], Fraction]  # (n, k) → q, for the sum of q·√n·π^k
Value = tuple[str, tuple[tuple[tuple[tuple[int, int], Fraction], ...], ...], str]

LARGEST = 10**9  # of a number under a root, which is factored
MOST_TERMS, MOST_POWER, MOST_DIGITS = 8, 12, 30
_TOKEN = re.compile(r"\s*(\\frac|\\sqrt|\\pi|\\cdot|\\times|π|[0-9]+|[-+*/^(){}\[\],])")
_OPENS, _CLOSES = "([", ")]"
_PI, _TIMES = ("\\pi", "π"), ("\\cdot", "\\times", "*")


def exactly_equal(first: str, second: str) -> bool | None:
    """Whether two texts are the same number, tuple or interval; None if one is not simple, or their kinds differ."""
    ours = exact(first)
    theirs = exact(second) if ours else None
    if ours is None or theirs is None or (ours[0], ours[2], len(ours[1])) != (theirs[0], theirs[2], len(theirs[1])):
        return None
    return ours[1] == theirs[1]


@lru_cache(maxsize=2**14)
def exact(text: str) -> Value | None:
    """The value of a text: its brackets, if it is a tuple or an interval, and its numbers in their one form."""
    tokens = _tokens(text)
    if not tokens:
        return None
    try:
        return _Reader(tokens).value()
    except (_NotSimpleError, RecursionError):
        return None


class _NotSimpleError(Exception):
    """The text has to be read by someone else."""


def _tokens(text: str) -> list[str]:
    found, at, text = [], 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or len(match[1]) > MOST_DIGITS:
            return []
        found.append(match[1])
        at = match.end()
    return found


class _Reader:
    """Reads tokens by the rules of arithmetic.

    Raises:
        _NotSimpleError: in every method.
    """

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    @property
    def next(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.next
        if token == "" or (wanted and token not in wanted):
            raise _NotSimpleError
        self.at += 1
        return token

    def value(self) -> Value:
        if self.next in tuple(_OPENS) and (found := self._bracketed()):
            return found
        number = self.sum()
        if self.next:
            raise _NotSimpleError
        return "", (_form(number),), ""

    def _bracketed(self) -> Value | None:
        """A tuple or an interval; None if the text only begins with a bracket."""
        opening = self.take(*_OPENS)
        numbers = [self.sum()]
        while self.next == ",":
            self.take(",")
            numbers.append(self.sum())
        closing = self.take(*_CLOSES)
        if len(numbers) > 1 and not self.next:
            return opening, tuple(map(_form, numbers)), closing
        self.at = 0
        return None

    def sum(self) -> Number:
        total: Number = {}
        sign = self._sign()
        while True:
            for key, factor in self.product().items():
                total[key] = total.get(key, Fraction(0)) + sign * factor
            if self.next not in ("+", "-"):
                return {key: factor for key, factor in total.items() if factor}
            sign = self._sign()

    def _sign(self) -> int:
        if self.next in ("+", "-"):
            return -1 if self.take() == "-" else 1
        return 1

    def product(self) -> Number:
        found = self.power()
        last = self.tokens[self.at - 1]
        while True:
            if self.next in _TIMES:
                self.take()
                found = _times(found, self.power())
            elif self.next == "/":
                self.take()
                found = _times(found, _inverse(self.power()))
                if self.next not in ("", "+", "-", ",", *_CLOSES, "}"):
                    raise _NotSimpleError  # 1/2π
            elif self.next in ("\\sqrt", "(", *_PI) or (self.next == "\\frac" and not last.isdigit()):
                found = _times(found, self.power())
            elif self.next == "\\frac" or self.next.isdigit():
                raise _NotSimpleError  # a mixed number, or two numbers
            else:
                return found
            last = self.tokens[self.at - 1]

    def power(self) -> Number:
        base = self.atom()
        if self.next != "^":
            return base
        self.take("^")
        braced = self.next == "{"
        exponent = self._braces() if braced else self._digit()
        if exponent is None or not 0 <= exponent <= MOST_POWER or (not braced and self.next.isdigit()):
            raise _NotSimpleError
        found: Number = {(1, 0): Fraction(1)}
        for _ in range(exponent):
            found = _times(found, base)
        return found

    def _braces(self) -> int | None:
        self.take("{")
        digits = self.take()
        self.take("}")
        return int(digits) if digits.isdigit() else None

    def _digit(self) -> int | None:
        digits = self.take()
        return int(digits) if digits.isdigit() and len(digits) == 1 else None

    def atom(self) -> Number:
        token = self.take()
        if token.isdigit():
            return _rational(Fraction(int(token)))
        if token in _PI:
            return {(1, 1): Fraction(1)}
        if token == "\\frac":
            above = self.argument()
            return _times(above, _inverse(self.argument()))
        if token == "\\sqrt":
            return _root(self.argument())
        if token in ("(", "{"):
            found = self.sum()
            self.take(")" if token == "(" else "}")
            return found
        raise _NotSimpleError

    def argument(self) -> Number:
        """What follows a command: a group, or one digit, of which the rest is left: \\frac12 is a half."""
        if self.next.isdigit():
            digits = self.take()
            if len(digits) > 1:
                self.at -= 1
                self.tokens[self.at : self.at + 1] = [digits[0], digits[1:]]
                self.at += 1
            return _rational(Fraction(int(digits[0])))
        if self.next in _PI:
            self.take()
            return {(1, 1): Fraction(1)}
        self.take("{")
        found = self.sum()
        self.take("}")
        return found


def _rational(value: Fraction) -> Number:
    return {(1, 0): value} if value else {}


def _form(number: Number) -> tuple[tuple[tuple[int, int], Fraction], ...]:
    return tuple(sorted(number.items()))


def _times(first: Number, second: Number) -> Number:
    total: Number = {}
    for (n, k), p in first.items():
        for (m, j), q in second.items():
            outside, inside = _squarefree(n * m)
            key = inside, k + j
            total[key] = total.get(key, Fraction(0)) + p * q * outside
    if len(total) > MOST_TERMS or any(len(str(q)) > 2 * MOST_DIGITS for q in total.values()):
        raise _NotSimpleError
    return {key: factor for key, factor in total.items() if factor}


def _inverse(number: Number) -> Number:
    """1/(q·√n·π^k) is (1/(q·n))·√n·π^-k. A sum below a fraction line is not simple."""
    if len(number) != 1:
        raise _NotSimpleError
    (((n, k), q),) = number.items()
    return {(n, -k): 1 / (q * n)}


def _root(number: Number) -> Number:
    if not number:
        return {}
    if set(number) != {(1, 0)} or number[1, 0] < 0:
        raise _NotSimpleError
    value = number[1, 0]
    outside, inside = _squarefree(value.numerator * value.denominator)
    return {(inside, 0): Fraction(outside, value.denominator)}


@lru_cache(maxsize=2**12)
def _squarefree(number: int) -> tuple[int, int]:
    """(a, b) with a²·b = number and b squarefree."""
    if number > LARGEST:
        raise _NotSimpleError
    outside, inside, left, factor = 1, 1, number, 2
    while factor**3 <= left:
        power = 0
        while left % factor == 0:
            left //= factor
            power += 1
        outside *= factor ** (power // 2)
        inside *= factor ** (power % 2)
        factor += 1
    # What is left has at most two prime factors.
    root = isqrt(left)
    return (outside * root, inside) if root * root == left else (outside, inside * left)
