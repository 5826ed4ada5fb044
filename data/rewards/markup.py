"""Remove the wrapping of an answer: bold, code and LaTeX delimiters, closing punctuation. Knows nothing of numbers."""

import re
from functools import lru_cache

from data.rewards.characters import plain_characters
from data.rewards.latex import plain_latex

_EDGES = ' \t\r\n*`"“”'
_BOLD = re.compile(r"(?<![\w)])\*\*(?=\S)([^*]+)(?<=\S)\*\*(?![\w(])")  # not the powers in '2**3**4'
_AND_SO_ON = (",...", ", ...")  # which a list ends in
_SPACE_SIGNS = ("\\", ",", ";", ":", "!", ">", " ")
_SPACE_BEHIND = re.compile(r"(?:(?<!\\)\\(?:[,;:!>\s]\s*|$))+$")
_POWER = re.compile(r"(?<=[0-9A-Za-z)])\*\*(?=[0-9A-Za-z({])")
_TIMES = re.compile(r"(?<=[0-9])\s+[xX]\s+(?=[0-9])")
_DELIMITERS = (("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ("(", ")"))


def strip_markup(text: str) -> str:
    """`text` without surrounding markup: '**$18$.**' becomes '18', '(B)' becomes 'B'; '(1, 2)' is kept."""
    if "**" in text:
        text = _BOLD.sub(r"\1", text)
    while True:
        before = text
        if text.endswith(_SPACE_SIGNS) and "\\" in text:
            text = _SPACE_BEHIND.sub("", text)
        text = text.strip(_EDGES)
        if not text.endswith(_AND_SO_ON):
            text = text.rstrip(".,;:")
        if text.endswith("_") and text.startswith("_"):
            text = text.strip("_")
        for opening, closing in _DELIMITERS:
            if len(text) > len(opening) and text.startswith(opening) and text.endswith(closing):
                inner = text[len(opening) : -len(closing)]
                # '(1, 2)' is a point and '(a)(b)' a product: only brackets without meaning are removed.
                if len(opening) > 1 or not any(mark in inner for mark in ("{}" if opening == "{" else "(),")):
                    text = inner
        if text == before:
            return text


@lru_cache(maxsize=2**12)
def normalized(text: str) -> str:
    """An answer in the normalized spelling that all readers know, without surrounding markup."""
    if text.isascii() and text.isalnum():
        return text
    text = strip_markup(plain_characters(text))
    if text.count("**") == 1:
        text = _POWER.sub("^", text)
    if " x " in text:
        text = _TIMES.sub(r" \\times ", text)
    if "\\" in text or "{{" in text or "{,}" in text or "((" in text or "( (" in text:
        return strip_markup(plain_latex(text))
    return text


def canonical_text(text: str) -> str:
    """One spelling for answers that differ only in white space or dollar signs."""
    return " ".join(text.replace("$", "").split())
