r"""Convert equations, inequalities and intervals to what can be compared: sides, names and values.

'5=2' does not answer 2, '2+3=5' answers 5; 'y=1, x=2' is the point (2,1).
"""

import re
from operator import itemgetter
from typing import NamedTuple

_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)|\\equiv(?![A-Za-z])")
_APPROXIMATELY = re.compile(
    r"\\(?:approx|simeq|thickapprox|doteq)(?![A-Za-z])|~=|\\sim(?![A-Za-z])|(?<=[0-9])\s*~\s*(?=[0-9])"
)
# '17 because 9*2 = 18' says 17.
_REASON = re.compile(
    r"(?<![A-Za-z\\])(?:because|since|as|so|if|when|where|but|not|for|while)(?![A-Za-z])", re.IGNORECASE
)
_OPERATION = re.compile(r"[0-9](?:\s*[A-Za-z]{3,})*\s*(?:[-+*/]|\\(?:times|cdot|div)(?![A-Za-z]))\s*\$?\(?[0-9]")
_SPOKEN = re.compile(
    r"(?<![A-Za-z\\_^{])(?!(?:sin|cos|tan|log|exp|sqrt|mod)(?![A-Za-z]))(?:[A-Za-z]{3,}|is|of|in)(?![A-Za-z({])"
)
_OUTWARD = re.compile(r"(?P<left>[\[\](])(?P<inner>[^\[\]()]*,[^\[\]()]*)(?P<right>[\[\])])")
_ORDER = re.compile(r"(<=|>=|<|>|\\leq?(?![A-Za-z])|\\geq?(?![A-Za-z])|\\lt(?![A-Za-z])|\\gt(?![A-Za-z]))")
_OR = re.compile(
    r"\\text\s*\{\s*or\s*\}|(?<![A-Za-z])or(?![A-Za-z])|\\lor(?![A-Za-z])|\\vee(?![A-Za-z])|\\cup(?![A-Za-z])"
)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_AND = re.compile(r"\\text\s*\{\s*and\s*\}|(?<![A-Za-z])and(?![A-Za-z])|\\(?:land|wedge)(?![A-Za-z])|,")
_MEMBER = re.compile(r"^\s*[a-zA-Z]\s*\\in(?![A-Za-z])\s*(?=[\[({\\])")
_BUILDER = re.compile(
    r"\s*\\\{\s*(?P<name>[a-zA-Z])\s*(?:\\in\s*\\mathbb\s*\{\s*R\s*\}\s*)?"
    r"(?:\\mid(?![A-Za-z])|\||:)(?P<condition>[^{}|]*[<>\\][^{}|]*)\\\}\s*"
)
_ASSIGNED = re.compile(r"\s*(?P<name>[A-Za-z](?:_\{?\w+\}?)?)\s*=\s*(?P<value>[^=]+)")
_SPLIT = re.compile(
    r"\s*(?:[,;]|\\text\s*\{\s*,?\s*and\s*\}|(?<![A-Za-z])and(?![A-Za-z])|\\text\s*\{\s*or\s*\}|(?<![A-Za-z])or(?![A-Za-z]))\s*"
)


class Sides(NamedTuple):
    """The sides of an equation or approximation; `value` is the last, or the first of an approximation."""

    value: str
    others: tuple[str, ...]
    approximate: bool


def sides(text: str) -> Sides | None:
    """The sides that `text` sets equal; None if it is not a single equation."""
    if "," in text or ";" in text or r"\begin" in text or _REASON.search(text):
        return None
    if "approx" in text or "sim" in text or "~" in text:
        parts = [part.strip() for part in _APPROXIMATELY.split(text)]
        if len(parts) == 2 and all(parts):
            return Sides(parts[0], (parts[1],), True)
    if "=" not in text and r"\equiv" not in text:
        return None
    parts = [part.strip() for part in _EQUALS.split(text)]
    if len(parts) == 2 and re.fullmatch("[a-zA-Z]", parts[1]) and is_numeric(parts[0]):
        parts.reverse()  # '12 = x'
    return Sides(parts[-1], tuple(parts[:-1]), False) if len(parts) > 1 and all(parts) else None


def calculation(side: str) -> str:
    """A side without its words, if numbers are calculated there: '9 + 8' for 'The total is 9 + 8 apples'."""
    return _SPOKEN.sub("", side) if _OPERATION.search(side) else side


def is_numeric(side: str) -> bool:
    """Whether a side has no letters except in commands and constants: 2+3, not x, |AB| or f(2)."""
    return re.search(r"[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", side)) is None and not re.search(
        r"\\(?:theta|alpha|beta|angle|triangle|text|mu|sigma|lambda)", side
    )


def assignments(text: str) -> list[tuple[str, str]] | None:
    """'y=1, x=2' as names and values, sorted by name; None if it is not such a list."""
    if text.count("=") < 2:
        return None
    matches = [_ASSIGNED.fullmatch(part) for part in _split_outside_brackets(text)]
    if len(matches) < 2 or not all(matches):
        return None
    return sorted(((match["name"], match["value"].strip()) for match in matches if match), key=itemgetter(0))


def as_interval(text: str) -> str | None:
    r"""'x<-1 or 1\le x<2' as '(-\infty,-1)\cup[1,2)'; None if it is not an inequality of one letter."""
    pieces = [_piece(part.strip()) or both_bounds(part) for part in _OR.split(text)]
    return r"\cup ".join(piece for piece in pieces if piece) if all(pieces) else None


def _piece(text: str) -> str | None:
    parts = _ORDER.split(text)
    if len(parts) == 3:
        left, sign, right = parts
        if re.fullmatch("[a-zA-Z]", left.strip()):
            return _between(None, "", sign, right) if _is_less(sign) else _between(right, sign, "", None)
        if re.fullmatch("[a-zA-Z]", right.strip()):
            return _between(left, sign, "", None) if _is_less(sign) else _between(None, "", sign, left)
    if len(parts) == 5 and re.fullmatch("[a-zA-Z]", parts[2].strip()) and _is_less(parts[1]) == _is_less(parts[3]):
        low, first, _, second, high = parts if _is_less(parts[1]) else reversed(parts)
        return _between(low, first, second, high)
    return None


def both_bounds(text: str) -> str | None:
    """'x>-2 and x<3' as '(-2,3)'; None if it is not two inequalities of one letter."""
    if _ORDER.search(text) is None or len(set(_LETTER.findall(text))) != 1:
        return None
    pieces = [_piece(part.strip()) or "" for part in _AND.split(text)]
    above, below = sorted(pieces, key=lambda piece: piece.startswith(r"(-\infty")) if len(pieces) == 2 else ("", "")
    if not above.endswith(r" \infty)") or not below.startswith(r"(-\infty"):
        return None
    return above.rpartition(",")[0] + "," + below.partition(",")[2]


def _between(low: str | None, first: str, second: str, high: str | None) -> str:
    opening, closing = ("[" if "e" in first or "=" in first else "("), ("]" if "e" in second or "=" in second else ")")
    return opening + (low or r"-\infty").strip() + ", " + (high or r"\infty").strip() + closing


def _is_less(sign: str) -> bool:
    return "<" in sign or r"\l" in sign


def plain_intervals(text: str) -> str:
    r"""'[0,1[' as '[0,1)'; 'x \in [0,1]' as '[0,1]'; '\{x : x<1\}' as 'x<1'."""
    if r"\{" in text and (builder := _BUILDER.fullmatch(text)):
        text = builder["condition"]
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
