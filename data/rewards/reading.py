"""Parse an answer as a number, words, a code such as a time, or mathematics; with a canonical spelling for each."""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from data.rewards.candidates import lists_several
from data.rewards.codes import code
from data.rewards.markup import canonical_text, normalized, strip_markup
from data.rewards.numeric import canonical_number, number_of, parse_number
from data.rewards.remarks import values_within, without_gloss

_TEXT_COMMAND = re.compile(r"\\text\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[^\W\d_]+(?:[ '’,&/-]+[^\W\d_]+)*(?:[.?]|(?<=\w\w)!)?")
_REMAINDER = re.compile(
    r"(?P<whole>-?[0-9]+)\s*,?\s*(?:with\s(?:a\s)?)?(?:remainder|rem\.?|R|r)\s*(?:of\s)?(?P<rest>[0-9]+)"
)
_INEQUALITY = re.compile(r"[<>]|\\(?:leq?|geq?|lt|gt|in|neq?|infty|mathbb|emptyset)(?![A-Za-z])")
_ENUMERATED = re.compile(r",\s*(?:and\s+)?|\s+and\s+")
# Algebra that looks like words: 'x/y', 'ad-bc', but not 'n/a'.
_PRODUCTS = re.compile("(?:[a-z]{1,2}|[A-Z])(?:[/-](?:[a-z]{1,2}|[A-Z]))+")
_NO_PRODUCTS = frozenset("n/a a/n y/n n/y t/f f/t e-g o-o".split())
_CONSTANTS = {"pi": r"\pi", "infinity": r"\infty", "positive infinity": r"\infty", "negative infinity": r"-\infty"}
_SAME_WORDS = {"does not exist": "dne", "no solutions": "no solution"}
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer|letter)\s+)?\(?(?P<letter>[A-J])\)?"
    r"(?:\s*$|\s*[).:]\s*(?P<text>.*)|\s+(?P<rest>[-–—(].*|because\s.*|is\s"
    r"(?!(?:[a-z]+\s){0,2}(?:wrong|incorrect|false|not|never|no|impossible|excluded|eliminated)\b).*)|,\s(?P<remark>.*))",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETED_CHOICE = re.compile(r"(?:(?:option|choice|answer)\s+)?\((?P<letter>[A-J])\)\s*(?P<text>.*)", re.DOTALL)
_OTHER_CHOICE = re.compile(
    r"(?<![A-Za-z])\(?[A-J]\)|^,?\s*[A-J](?:,|\s+(?:and|or)\s|\s*$)"
    r"|(?<![A-Za-z])(?:or|and|not|maybe|wrong|incorrect)\s+\(?[A-J]?\b|[A-J][.:]\s"
)


class Answer(NamedTuple):
    """A parsed answer. `text` is in the readers' spelling; equal answers of a kind share `canonical`."""

    text: str
    number: Fraction | None = None
    is_words: bool = False
    is_code: bool = False
    canonical: str = ""

    @property
    def is_plain(self) -> bool:
        return self.is_words or self.is_code or self.number is not None

    @property
    def may_be_list(self) -> bool:
        """Whether a list may equal it: it is a list, or an inequality, which may equal an interval."""
        return self.is_list or _INEQUALITY.search(self.text) is not None

    @property
    def is_list(self) -> bool:
        return self.number is None and not self.is_code and (lists_several(self.text) or r"\pm" in self.text)


@lru_cache(maxsize=2**12)
def read(text: str) -> Answer:
    """Read an answer as it is, without searching among surrounding words. A gloss in parentheses is removed."""
    if (number := parse_number(text)) is not None:
        return Answer(text, number, canonical=canonical_number(number))
    text = normalized(text)
    if (bare := without_gloss(text)) != text and (number := number_of(normalized(bare))) is not None:
        return Answer(bare, number, canonical=canonical_number(number))
    plain = strip_markup(_TEXT_COMMAND.sub(r" \1 ", text)) if "\\text" in text else text
    plain = " ".join(plain.split())
    if (found := _remainder(plain) or code(plain)) is not None:
        return Answer(text, is_code=True, canonical=found)
    if _WORDS.fullmatch(plain) and (_PRODUCTS.fullmatch(plain) is None or plain.casefold() in _NO_PRODUCTS):
        words = plain.casefold().rstrip(".!?")
        if "," in words or " and " in words:
            words = ", ".join(sorted(_ENUMERATED.split(words)))
        words = _SAME_WORDS.get(words, words)
        if words in _CONSTANTS:
            return Answer(_CONSTANTS[words], canonical=_CONSTANTS[words])
        return Answer(text, is_words=True, canonical=words)
    return Answer(text, canonical=canonical_text(text))


def readings(text: str) -> Iterator[Answer]:
    """The possible readings of an answer: as it is, then by the values among its words, likeliest first."""
    yield (first := read(text))
    if first.number is None:
        yield from (read(value) for value in values_within(first.text))


@lru_cache(maxsize=2**12)
def best_reading(text: str) -> Answer:
    """The reading that has a plain number, else the answer as it is."""
    first = read(text)
    if first.number is not None or first.is_code:
        return first
    for found in readings(first.text):
        if found.number is not None or found.is_code:
            return found
    return first


def choice(text: str) -> str | None:
    """The letter of '(C) 42', 'C: 42', 'option C' and the like; None if there is none or more than one."""
    return found["letter"].upper() if (found := _choice(text)) else None


def option_text(text: str) -> str | None:
    """What stands behind the letter: '42' of '(C) 42'; None if it has no choice letter in front."""
    found = _choice(text)
    return found["text"].strip() or None if found and found["text"] else None


def _choice(text: str) -> re.Match[str] | None:
    text = normalized(text)
    text = " ".join((_TEXT_COMMAND.sub(r" \1 ", text) if "\\text" in text else text).split())
    match = _BRACKETED_CHOICE.fullmatch(text) or _CHOICE.fullmatch(text)
    if match is None or _OTHER_CHOICE.search(text[match.end("letter") + 1 :]):
        return None
    return match


def _remainder(text: str) -> str | None:
    match = _REMAINDER.fullmatch(text)
    return f"{match['whole']} r {match['rest']}" if match else None
