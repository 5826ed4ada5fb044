r"""Brings equations, inequalities and intervals to what can be compared: sides, names and values.

'5=2' is no answer 2, '2+3=5' is one of 5; 'y=1, x=2' is the point (2,1).
"""

import re
from typing import NamedTuple

_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_APPROXIMATELY = re.compile(r"\\(?:approx|simeq|thickapprox|doteq)(?![A-Za-z])|~=|\\sim(?![A-Za-z])|(?<=[0-9])\s*~\s*(?=[0-9])")
_OUTWARD = re.compile(r"(?P<left>[\[\](])(?P<inner>[^\[\]()]*,[^\[\]()]*)(?P<right>[\[\])])")
_MEMBER = re.compile(r"^\s*[a-zA-Z]\s*\\in(?![A-Za-z])\s*(?=[\[({\\])")
_ASSIGNED = re.compile(r"\s*(?P<name>[A-Za-z](?:_\{?\w+\}?)?)\s*=\s*(?P<value>[^=]+)")
_SPLIT = re.compile(r"\s*(?:[,;]|\\text\s*\{\s*,?\s*and\s*\}|(?<![A-Za-z])and(?![A-Za-z]))\s*")


class Sides(NamedTuple):
    """The sides of an equation or approximation; `value` is the last, or the first of an approximation."""

    value: str
    others: tuple[str, ...]
    approximate: bool


def sides(text: str) -> Sides | None:
    """What `text` sets equal, None if it is no single equation."""
    if "," in text or ";" in text or r"\begin" in text:
        return None
    if "approx" in text or "sim" in text or "~" in text:
        parts = [part.strip() for part in _APPROXIMATELY.split(text)]
        if len(parts) == 2 and all(parts):
            return Sides(parts[0], (parts[1],), True)
    if "=" not in text:
        return None
    parts = [part.strip() for part in _EQUALS.split(text)]
    return Sides(parts[-1], tuple(parts[:-1]), False) if len(parts) > 1 and all(parts) else None


def is_numeric(side: str) -> bool:
    """Whether a side holds no letter but those of commands and constants: 2+3, not x, |AB| or f(2)."""
    return re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", side)) is None and not re.search(r"\\(?:theta|alpha|beta|angle|triangle|text|mu|sigma|lambda)", side)


def assignments(text: str) -> dict[str, str] | None:
    """'y=1, x=2' as names and values; None if it is not such a list, or a name stands twice."""
    if text.count("=") < 2:
        return None
    matches = [_ASSIGNED.fullmatch(part) for part in _split_outside_brackets(text)]
    if len(matches) < 2 or not all(matches):
        return None
    found = {match["name"]: match["value"].strip() for match in matches if match}
    return found if len(found) == len(matches) else None


def plain_intervals(text: str) -> str:
    r"""'[0,1[' as '[0,1)', and 'x \in [0,1]' as '[0,1]'."""
    if "[" not in text and "]" not in text and r"\in" not in text:
        return text
    text = _MEMBER.sub("", text)
    return _OUTWARD.sub(_turned, text) if re.search(r"\[\s*(?:$|\\cup)|(?:^|\\cup)\s*\]", text) else text


def _turned(match: re.Match[str]) -> str:
    left, right = match["left"].replace("]", "("), match["right"].replace("[", ")")
    return f"{left}{match['inner']}{right}"


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth, begun = [], 0, 0
    for match in re.finditer(r"[(\[{]|[)\]}]|" + _SPLIT.pattern, text):
        sign = match[0]
        if sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
        elif depth == 0 and sign.strip():
            parts.append(text[begun : match.start()])
            begun = match.end()
    return [*parts, text[begun:]]
