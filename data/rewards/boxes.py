r"""Find \boxed{…} in a text. Boxes joined by 'or', 'and', a comma or spacing are one group and one answer."""

import re
from typing import NamedTuple

_BRACES = re.compile(r"\\{1,4}(?:boxed|fbox)\s{0,3}\{|\\.|[{}]", re.DOTALL)
_WITHOUT_BRACES = re.compile(r"\\{1,4}(?:boxed|fbox)\s{1,3}(-?[0-9][0-9.,]*[0-9]|[0-9A-Za-z])")
# What may separate two boxes of a group: delimiters, spacing, and words that offer alternatives.
_JOINT = re.compile(
    r"(?:[\s~$*.,;/&|()（），、；。]|(?<![A-Za-z0-9])[a-h1-9][).）]\s|(?<=\n)-\s|或者?|和|与|以及|"
    r"\\[()\[\],;:! ]|\\\\|\\q?quad|\\[hv]space\*?\{[^{}]*\}|"
    r"\\(?:lor|land|vee|wedge|text|mathrm|textbf|textit|textrm|mbox|hbox)(?![A-Za-z])|[{}]|"
    r"(?<![A-Za-z])(?:or(?:\s(?:else|even|it\s(?:could|may|might)\sbe|the\sanswer\sis))?|and|also|maybe|perhaps|"
    r"possibly|alternatively|either|both|respectively|as well as|[a-zA-Z](?:_\{?[0-9a-z]\}?)?\s?=)(?![A-Za-z]))*",
    re.IGNORECASE,
)
MAX_JOINT = 60
MAX_GROUP = 50


class Box(NamedTuple):
    """A box, or a group of them: its start, end and content. `closed`: its closing brace is there."""

    start: int
    end: int
    content: str
    closed: bool = True


def boxes(text: str) -> list[Box]:
    """All boxes of a text in order, groups joined: '3 or 4'. For nested boxes, the inner one counts."""
    if "boxed" not in text and "fbox" not in text:
        return []
    groups: list[list[Box]] = []
    for box in _single_boxes(text):
        if groups and len(groups[-1]) < MAX_GROUP and _joined(text[groups[-1][-1].end : box.start]):
            groups[-1].append(box)
        else:
            groups.append([box])
    return [_as_one(group) for group in groups]


def _first(text: str) -> int:
    """Where the first box begins: the text before it needs no reading."""
    return max(0, min(at for at in (text.find(r"\boxed"), text.find(r"\fbox"), len(text)) if at >= 0) - 1)


def _as_one(group: list[Box]) -> Box:
    different = list({box.content.strip(): None for box in group})
    return Box(group[0].start, group[-1].end, " or ".join(different), all(box.closed for box in group))


def _joined(between: str) -> bool:
    return len(between) <= MAX_JOINT and _JOINT.fullmatch(between) is not None


def _single_boxes(text: str) -> list[Box]:
    open_braces: list[tuple[int, int, bool]] = []
    found: list[Box] = []
    for match in _BRACES.finditer(text, _first(text)):
        token = match[0]
        if token.endswith("{") and token != r"\{":
            open_braces.append((match.start(), match.end(), len(token) > 1))
        elif token == "}" and open_braces:
            start, inside, is_box = open_braces.pop()
            if is_box and not (found and found[-1].start > start):
                found.append(Box(start, match.end(), text[inside : match.start()]))
    unclosed = next(((start, inside) for start, inside, is_box in reversed(open_braces) if is_box), None)
    if unclosed is not None and not (found and found[-1].start > unclosed[0]):
        start, inside = unclosed
        found.append(Box(start, len(text), text[inside:].partition("\n")[0], closed=False))
    spaced = "boxed " in text or "fbox " in text
    bare = [Box(match.start(), match.end(), match[1]) for match in _WITHOUT_BRACES.finditer(text)] if spaced else []
    return sorted(found + bare) if bare else found
