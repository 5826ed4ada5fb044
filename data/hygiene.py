"""What a record may hold: wrong order of turns and impossible signs are refused, placeholders filled in."""

import re
from collections.abc import Mapping
from dataclasses import replace

from data.formats import Record, RowError
from data.rows import HIDDEN

# ASCII's but tab, line feed, vertical tab, form feed and carriage return, which white space may be.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
# {{name}}, but not the braces of LaTeX, as in x^{{ab}} or \frac{{ab}}{{cd}}.
PLACEHOLDER = re.compile(r"(?<![\\^_{}A-Za-z0-9])\{\{ *([A-Za-z]\w+) *\}\}(?!\})", re.ASCII)


def cleaned(record: Record, placeholders: Mapping[str, str] | None) -> Record:
    """A record with its placeholders filled in.

    Args:
        placeholders: what each `{{name}}` stands for; one that stands for itself is kept. None to fill in nothing, as
            in programs, where double braces mean something else.

    Raises:
        RowError: turns of user and assistant that do not alternate; a control character in any text; a placeholder
            for which there is nothing.
    """
    roles = [turn["role"] for turn in record.messages if turn["role"] != "system"]
    if roles != (["user", "assistant"] * len(roles))[: len(roles)]:
        raise RowError(
            "wrong role order",
            f"the turns are {' → '.join(roles)}. They must be the user's and the assistant's in turn, the user's first",
        )
    for text in _texts(record):
        if found := CONTROL.search(text):
            raise RowError(
                "control character",
                f"the control character U+{ord(found[0]):04X} stands in {_around(text, found.start())}",
            )
    if placeholders is None or not any("{{" in text for text in _texts(record)):
        return record
    values = placeholders

    def fill(text: str) -> str:
        return PLACEHOLDER.sub(lambda found: _value(found[1], values), text)

    return replace(
        record,
        messages=[{**turn, "content": fill(turn["content"])} for turn in record.messages],
        response=None if record.response is None else fill(record.response),
        rejected=None if record.rejected is None else fill(record.rejected),
        reference=None if record.reference is None else fill(record.reference),
    )


def has_hidden(record: Record) -> bool:
    """Whether a text of the record has characters that nobody sees."""
    return any(HIDDEN.search(text) for text in _texts(record))


def _texts(record: Record) -> list[str]:
    answers = (record.response, record.rejected, record.reference)
    return [*(turn["content"] for turn in record.messages), *(text for text in answers if text is not None)]


def _value(name: str, placeholders: Mapping[str, str]) -> str:
    if name not in placeholders:
        raise RowError(
            f"placeholder {name}",
            f"nothing is given for the placeholder {{{{{name}}}}}. Say what it stands for, as in "
            f"placeholders: {{{name}: …}}; or, if it is meant as it stands, that it stands for itself.",
        )
    return placeholders[name]


def _around(text: str, position: int) -> str:
    return repr(text[max(position - 20, 0) : position + 20])
