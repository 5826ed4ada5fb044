"""Checks on a record's texts: wrong turn order and control characters are refused, placeholders filled in."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from data.formats import ContentError, Record
from data.rows import HIDDEN

# ASCII control characters except tab, line feed, vertical tab, form feed and carriage return, which are white space.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
PLACEHOLDER = re.compile(r"\{\{ *([A-Za-z]\w+) *\}\}(?!\})", re.ASCII)
NAME = r"^[A-Za-z][A-Za-z0-9_]+$"  # a single letter might as well be LaTeX
# What precedes the braces of LaTeX, as in x^{{ab}} or \frac{{ab}}{{cd}}.
BEFORE_LATEX = re.compile(r"(\\[A-Za-z]*|[\^_{}])$")


def cleaned(record: Record, placeholders: Mapping[str, str] | None) -> Record:
    """Return a record with its placeholders filled in.

    Args:
        placeholders: the text for each `{{name}}`; other double braces stay, since code is full of them. None fills in
            nothing, as in programs.

    Raises:
        ContentError: turns of user and assistant do not alternate, or a text has a control character.
    """
    roles = [turn["role"] for turn in record.messages if turn["role"] != "system"]
    if roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise ContentError(
            "wrong role order",
            f"the turns are {' → '.join(roles)}. User and assistant must alternate, starting with the user",
        )
    for text in _texts(record):
        if found := CONTROL.search(text):
            raise ContentError(
                "control character",
                f"the control character U+{ord(found[0]):04X} is in {_around(text, found.start())}",
            )
    if not placeholders or not any("{{" in text for text in _texts(record)):
        return record
    values = placeholders

    def fill(text: str) -> str:
        return "".join(_filled(text, values))

    return replace(
        record,
        messages=[{**turn, "content": fill(turn["content"])} for turn in record.messages],
        response=None if record.response is None else fill(record.response),
        rejected=None if record.rejected is None else fill(record.rejected),
        reference=None if record.reference is None else fill(record.reference),
    )


def has_hidden(record: Record) -> bool:
    """Whether a text of the record has invisible characters."""
    return any(HIDDEN.search(text) for text in _texts(record))


def has_placeholder(record: Record) -> bool:
    """Whether the record has a name in double braces that is not LaTeX."""
    return any("{{" in text and any(not latex for _, latex in _places(text)) for text in _texts(record))


def _texts(record: Record) -> list[str]:
    answers = (record.response, record.rejected, record.reference)
    return [*(turn["content"] for turn in record.messages), *(text for text in answers if text is not None)]


def _filled(text: str, values: Mapping[str, str]) -> Iterator[str]:
    done = 0
    for place, is_latex in _places(text):
        yield text[done : place.start()]
        yield place[0] if is_latex else values.get(place[1], place[0])
        done = place.end()
    yield text[done:]


def _places(text: str) -> Iterator[tuple[re.Match[str], bool]]:
    """The names in double braces, and whether each is LaTeX."""
    done, was_latex = 0, False
    for place in PLACEHOLDER.finditer(text):
        adjacent = place.start() == done > 0
        before = text[max(place.start() - 30, 0) : place.start()]
        was_latex = was_latex if adjacent else bool(BEFORE_LATEX.search(before))
        yield place, was_latex
        done = place.end()


def _around(text: str, position: int) -> str:
    return repr(text[max(position - 20, 0) : position + 20])
