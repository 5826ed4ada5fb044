"""The formats of data sets, told by their columns, and what a row of each says.

To add a format, write its reader and its line in the file of its kind; nothing else has to know of it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from data.errors import AutodidactError
from data.formats import choices, instructions, own, passages, preferences, verifiable
from data.formats.chat import unread_keys, with_reasoning
from data.formats.record import (
    ContentError,
    Format,
    LeftOutError,
    Message,
    Record,
    Row,
    RowError,
    Use,
    any_values,
    short,
)
from data.formats.values import LABELS, answer, bare_column, is_dislike

__all__ = [
    "FORMATS",
    "ContentError",
    "Detected",
    "Format",
    "FormatError",
    "LeftOutError",
    "Message",
    "Record",
    "Row",
    "RowError",
    "Use",
    "detect",
    "named",
]

FORMATS: tuple[Format, ...] = (
    *verifiable.FORMATS,
    *choices.FORMATS,
    *preferences.FORMATS,
    *instructions.FORMATS,
    *own.FORMATS,
    *passages.FORMATS,
)


class FormatError(AutodidactError):
    """No format fits the columns, or none of that name is known."""


@dataclass(frozen=True)
class Detected:
    """A format and why it was taken."""

    format: Format
    reason: str


def named(name: str) -> Format:
    """The format of that name.

    Raises:
        FormatError: there is none; with the names that there are.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise FormatError(
        f"There is no format {name!r}.",
        what_next=f"Known are {', '.join(known.name for known in FORMATS)}.",
    )


def detect(row: Row) -> Detected:
    """The format whose columns a row has; of several, the one that needs most of them, then the one that reads most.

    Raises:
        FormatError: none; with the one that comes nearest, and what it lacks.
    """
    fitting = [known for known in FORMATS if not missing(known, row) and known.fits(row)]
    if fitting:
        best = max(fitting, key=lambda known: (len(known.needs), len(columns_read(known, row))))
        return Detected(best, f"it has {', '.join(columns_read(best, row))}{unread_columns(best, row)}")
    near = nearest(row, FORMATS)
    raise FormatError(f"No format has the columns {', '.join(map(repr, row)) or 'none'}.", *help_towards(near, row))


def help_towards(near: Format, row: Row) -> tuple[str, str]:
    """What a row lacks of a format, and how it comes to have it without a loss, in two sentences."""
    lacks = missing(near, row)
    alike = {name.lower(): name for name in row}
    mapped = ", ".join(f"{name}: {alike.get(name, '<your column>')}" for name in lacks)
    return (
        f"The nearest is {near.name} ({near.about}), which also needs {', '.join(map(repr, lacks))}.",
        f"Name the format, or map its columns to yours, as in columns: {{{mapped}}}. A column that is "
        "neither the format's nor mapped is not read: if a text is spread over several, join them first.",
    )


def columns_read(known: Format, row: Row) -> list[str]:
    """The row's columns that a format reads."""
    return list(dict.fromkeys((*needed(known, row), *(name for name in known.optional.split() if name in row))))


def unread_columns(known: Format, row: Row) -> str:
    """The row's columns that a format does not read, in words."""
    unread = [name for name in row if name not in columns_read(known, row)]
    return f"; not read: {', '.join(name or repr(name) for name in unread)}" if unread else ""


def holding_unread(known: Format, row: Row, told: Collection[str]) -> list[str]:
    """The row's columns that hold something and that a format does not read, besides those that were told."""
    read = columns_read(known, row)
    return [name for name in row if name not in told and name not in read and row[name] not in (None, "", [], {})]


def without_twice(known: Format, row: Row, columns: Mapping[str, str]) -> Row:
    """The row without a column that a format reads under its own name as well as under the one it is mapped to."""
    read = columns_read(known, row) if columns else []
    twice = {theirs for ours, theirs in columns.items() if ours in read and theirs in read and theirs not in columns}
    return {name: value for name, value in row.items() if name not in twice} if twice else row


def nearest(row: Row, formats: Sequence[Format]) -> Format:
    """The format of whose columns a row has the largest share, but not all; of equals, the one that reads most of the
    row, then the first.

    One that its values tell comes last: more columns do not make a row one of these.
    """
    return max(
        (known for known in formats if missing(known, row)),
        key=lambda known: (
            known.fits is any_values,
            1 - len(missing(known, row)) / len(known.needs),
            len(columns_read(known, row)),
        ),
    )


def missing(known: Format, row: Row) -> list[str]:
    """The columns that a format needs and a row lacks."""
    return [name.split("|")[0] for name in known.needs if not any(choice in row for choice in name.split("|"))]


def needed(known: Format, row: Row) -> list[str]:
    """The row's own names of the columns that a format needs, as far as it has them."""
    return [choice for name in known.needs if (choice := next((c for c in name.split("|") if c in row), None))]


def records(known: Format, row: Row, use: Use) -> Iterator[Record]:
    """What a row says.

    Raises:
        RowError: the row cannot be used.
    """
    if lacks := missing(known, row):
        raise RowError("no " + lacks[0], f"no {lacks[0]!r} (fields {', '.join(map(repr, row)) or 'none'})")
    if use != "prompts":
        _refuse_disliked(known, row)
    others = {"demonstrations": known.demonstrate, "prompts": known.ask}
    for record in (others.get(use) or known.read)(row):
        yield _judged_by_answer(known, row, record) if use == "problems" else record


def _judged_by_answer(known: Format, row: Row, record: Record) -> Record:
    """The record with the row's bare answer as its reference, where a gold answer alone would be it."""
    name = bare_column(row) if record.reference is None else None
    return replace(record, reference=answer(row, name)) if name in columns_read(known, row) and name else record


def _refuse_disliked(known: Format, row: Row) -> None:
    """KTO (arXiv 2402.01306) marks each answer as liked or not; one that is not is no gold answer."""
    for name in LABELS:
        if name in row and is_dislike(row[name]) and name in columns_read(known, row):
            raise LeftOutError("disliked answer", f"{name!r} is {short(row[name])}: the answer is not liked")


def unread_of_messages(known: Format, row: Row, use: Use) -> set[str]:
    """The keys of a row's messages that hold something and that its format does not read."""
    return unread_keys(row, columns_read(known, row), weighed=use != "pairs")


def reasoned(known: Format, row: Row) -> Row:
    """The row with its assistants' reasoning put in front of what they say."""
    return with_reasoning(row, columns_read(known, row))
