"""Distinguish one answer from a list of candidates. '3 or 4' may hold the right number but does not say which it is."""

import re

_THOUSANDS = re.compile(r"(?<=[0-9])(?:,|\{,\})(?=[0-9]{3}(?![0-9]))")
_SEPARATORS = re.compile(
    r"[,;]|\\(?:lor|vee|quad|qquad|newline)\b|\\\\|(?<![A-Za-z])(?:or|and|vs|versus)(?![A-Za-z])"
    r"|(?<![0-9^_])[0-9]+(?:\s|~|\\[,;: ])+[0-9]",
    re.IGNORECASE,
)
_BARS = re.compile(r"\\mid\b|\|")


def lists_several(answer: str) -> bool:
    """Whether `answer` reads as several values: with commas, semicolons, 'or', or numbers side by side.

    Numbers side by side count because Math-Verify would add them: it reads '3 4' as a mixed number worth 7.
    A single bar also makes a list; two are an absolute value. Points, intervals and sets are lists in this sense.
    They are only compared with a reference that is also a list.
    """
    bare = _THOUSANDS.sub("", answer)
    return _SEPARATORS.search(bare) is not None or len(_BARS.findall(bare)) % 2 == 1
