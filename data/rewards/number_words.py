"""Numbers in words: 'twenty-one', 'negative five', 'two thirds', 'three and a half', 'a dozen eggs'."""

import re
from fractions import Fraction

from data.rewards.units import SCALES, is_known_unit, part_named

MAX_WORDS = 16

_ONES = dict(zip((
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split(), range(20), strict=True))  # fmt: skip
_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_WORDS = re.compile(r"[A-Za-z]+(?:[\s,-]+[A-Za-z]+)*")
_SCALES = {name: value for name, value in SCALES.items() if name not in ("ten", "score", "mn", "bn", "gross", "myriad")}


def number_in_words(text: str) -> Fraction | None:
    """The value of `text` if it is a number in words, optionally with a known unit, else None."""
    if not _WORDS.fullmatch(text):
        return None
    words = re.split(r"[\s,-]+", text.lower())
    if len(words) > MAX_WORDS:
        return None
    negative = words[0] in ("negative", "minus")
    value, rest = _mixed(words[1:] if negative else words)
    if rest[-2:] == ["below", "zero"]:
        negative, rest = not negative, rest[:-2]
    if rest[:1] == ["point"] and value is not None:
        value, rest = _decimal(value, rest[1:])
    if value is None or not is_known_unit(rest):
        return None
    return -value if negative else value


def _decimal(whole: Fraction, words: list[str]) -> tuple[Fraction | None, list[str]]:
    """'three point one four': digits, and the words after them."""
    digits = ""
    while len(digits) < len(words) and _ONES.get(words[len(digits)], 10) < 10:
        digits += str(_ONES[words[len(digits)]])
    rest = words[len(digits) :]
    return (whole + Fraction(int(digits), 10 ** len(digits)), rest) if digits else (None, rest)


def _mixed(words: list[str]) -> tuple[Fraction | None, list[str]]:
    """A number and the words after it: a whole number, a fraction, or one 'and' the other."""
    whole, rest = _whole(words)
    if whole is None:
        return _part(words)
    if rest and (part := part_named(rest[0])) is not None and rest[0] != "second":
        return Fraction(whole, part), rest[1:]
    if rest[:1] == ["and"]:
        fraction, behind = _part(rest[1:])
        if fraction is not None and fraction < 1:
            return whole + fraction, behind
    return Fraction(whole), rest


def _part(words: list[str]) -> tuple[Fraction | None, list[str]]:
    if words[:2] == ["half", "a"] and words[2:3] == ["dozen"]:
        return Fraction(6), words[3:]
    if words[:1] == ["half"]:
        return Fraction(1, 2), words[1:]
    top, rest = (1, words[1:]) if words[:1] in (["a"], ["an"]) else _whole(words)
    part = part_named(rest[0]) if rest and top is not None else None
    return (Fraction(top or 0, part), rest[1:]) if part else (None, words)


def _whole(words: list[str]) -> tuple[int | None, list[str]]:
    """The whole number that `words` begin with, else None."""
    total = group = 0
    at = 0
    last = None  # magnitude of the last word: 'five three' and 'twenty forty' are two numbers each
    if words[:1] in (["a"], ["an"]) and words[1:2] and words[1] in _SCALES:
        group, at, last = 1, 1, 1
    start = at
    while at < len(words):
        word = words[at]
        if word in _ONES and (last is None or last >= 100 or (last >= 20 and _ONES[word] < 10 and _ONES[word])):
            group, last = group + _ONES[word], _ONES[word]
        elif word in _TENS and (last is None or last >= 100):
            group, last = group + _TENS[word], _TENS[word]
        elif word in _SCALES and last is not None:
            scale = _SCALES[word]
            if scale < 1000:
                group *= scale
            else:
                total, group = total + group * scale, 0
            last = max(scale, 100)
        elif word == "and" and last is not None and last >= 100 and _continues(words[at + 1 :]):
            pass
        else:
            break
        at += 1
    return (total + group, words[at:]) if at > start or start else (None, words)


def _continues(words: list[str]) -> bool:
    known = words[:1] and (words[0] in _ONES or words[0] in _TENS)
    return bool(known) and not (len(words) > 1 and part_named(words[1]) is not None)
