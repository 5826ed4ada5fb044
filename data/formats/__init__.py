"""The data set formats, recognized by their columns, and how a row of each is read.

To add a format, write its reader and add its entry to the file of its kind; nothing else has to change.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from data.errors import AutodidactError
from data.formats import choices, instructions, own, passages, preferences, verifiable
from data.formats.chat import is_prompt_unlearned, refuse_unlearned, unread_keys, with_reasoning
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
    is_missing,
    short,
)
from data.formats.values import LABELS, bare_answer, bare_column, is_blank, is_dislike, is_like

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
    """No format fits the columns, or no format has that name."""


@dataclass(frozen=True)
class Detected:
    """A format and why it was chosen."""

    format: Format
    reason: str


def named(name: str) -> Format:
    """The format of that name.

    Raises:
        FormatError: no such format; the message lists the known names.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    raise FormatError(
        f"There is no format {name!r}.",
        what_next=f"Known formats: {', '.join(known.name for known in FORMATS)}.",
    )


def detect(row: Row) -> Detected:
    """The format whose columns a row has: of several, the one that needs most of them, then the one that reads most.

    Raises:
        FormatError: no format fits; the message names the nearest and the columns it lacks.
    """
    fitting = [known for known in FORMATS if not missing(known, row) and known.fits(row)]
    if fitting:
        best = max(fitting, key=lambda known: (len(known.needs), len(columns_read(known, row))))
        return Detected(best, f"it has {', '.join(columns_read(best, row))}{unread_columns(best, row)}")
    near = nearest(row, FORMATS)
    raise FormatError(f"No format has the columns {', '.join(map(repr, row)) or 'none'}.", *help_towards(near, row))


def help_towards(near: Format, row: Row) -> tuple[str, str]:
    """Which columns a row lacks for a format, and how to supply them without losing data, in two sentences."""
    lacks = missing(near, row)
    alike = {name.lower(): name for name in row}
    others = [name for name in near.optional.split() if name in alike and name not in (*row, *lacks)]
    mapped = ", ".join(f"{name}: {alike.get(name, '<your column>')}" for name in (*lacks, *others))
    return (
        f"The nearest is {near.name} ({near.about}), which also needs {', '.join(map(repr, lacks))}.",
        f"Set the format, or map its columns to yours, as in columns: {{{mapped}}}. A column that is "
        "neither the format's nor mapped is not read: if a text spans several columns, join them first.",
    )


def columns_read(known: Format, row: Row) -> list[str]:
    """The row's columns that a format reads."""
    return list(dict.fromkeys((*needed(known, row), *(name for name in known.optional.split() if name in row))))


def unread_columns(known: Format, row: Row) -> str:
    """The row's columns that a format does not read, as text for a message."""
    unread = [name for name in row if name not in columns_read(known, row)]
    return f"; not read: {', '.join(name or repr(name) for name in unread)}" if unread else ""


def holding_unread(known: Format, row: Row, told: Collection[str]) -> list[str]:
    """The row's non-empty columns that a format does not read, except those in `told` (already reported)."""
    read = columns_read(known, row)
    empty = [name for name, value in row.items() if is_missing(value) or value in ("", [], {})]
    return [name for name in row if name not in told and name not in read and name not in empty]


def without_twice(known: Format, row: Row, columns: Mapping[str, str]) -> Row:
    """The row without columns that a format would read twice: under its own name and under the one it is mapped to."""
    read = columns_read(known, row) if columns else []
    twice = {theirs for ours, theirs in columns.items() if ours in read and theirs in read and theirs not in columns}
    return {name: value for name, value in row.items() if name not in twice} if twice else row


def nearest(row: Row, formats: Sequence[Format]) -> Format:
    """The format of whose columns a row has the largest share, but not all; of equals, the one that reads most of the
    row, then the first.

    Formats recognized by their values come last: adding columns does not turn a row into one of these.
    """
    alike = {name.lower(): value for name, value in row.items()} | dict(row)
    return max(
        (known for known in formats if missing(known, row)),
        key=lambda known: (
            known.fits is any_values,
            1 - len(missing(known, alike)) / len(known.needs),
            len(columns_read(known, alike)),
        ),
    )


def missing(known: Format, row: Row) -> list[str]:
    """The columns that a format needs and a row lacks."""
    return [name.split("|")[0] for name in known.needs if not any(choice in row for choice in name.split("|"))]


def needed(known: Format, row: Row) -> list[str]:
    """The row's own names of the columns that a format needs, as far as present."""
    return [choice for name in known.needs if (choice := next((c for c in name.split("|") if c in row), None))]


def records(known: Format, row: Row, use: Use) -> Iterator[Record]:
    """The records of a row.

    Raises:
        RowError: the row cannot be used.
    """
    if lacks := missing(known, row):
        raise RowError("no " + lacks[0], f"no {lacks[0]!r} (fields {', '.join(map(repr, row)) or 'none'})")
    read = columns_read(known, row)
    if use != "prompts":
        _refuse_disliked(known, row)
    if use not in ("prompts", "pairs"):
        refuse_unlearned(row, read)
    others = {"demonstrations": known.demonstrate, "prompts": known.ask}
    for record in (others.get(use) or known.read)(row):
        if use == "demonstrations" and is_prompt_unlearned(row, read):
            record = replace(record, unweighted=True)
        yield _judged_by_answer(known, row, record) if use == "problems" else record


def _judged_by_answer(known: Format, row: Row, record: Record) -> Record:
    """The record with the row's bare answer as its reference, if otherwise the gold answer alone would be used."""
    name = bare_column(row) if record.reference is None else None
    return replace(record, reference=bare_answer(row, name)) if name in columns_read(known, row) and name else record


def _refuse_disliked(known: Format, row: Row) -> None:
    """KTO (arXiv 2402.01306) labels each answer as desirable or not; an undesirable one is not a gold answer."""
    for name in _labels(known, row):
        if is_dislike(row[name]):
            raise LeftOutError("disliked answer", f"{name!r} is {short(row[name])}: the answer is not liked")


def unclear_labels(known: Format, row: Row) -> list[str]:
    """The row's columns of labels whose values say neither that its answer is liked nor that it is not."""
    return [name for name in _labels(known, row) if not (is_like(row[name]) or is_dislike(row[name]))]


def _labels(known: Format, row: Row) -> list[str]:
    """The row's columns that label its answer. A multiple choice's `label` is the answer itself."""
    return [name for name in LABELS if name in known.optional.split() and not is_blank(row, name)]


def unread_of_messages(known: Format, row: Row, use: Use) -> set[str]:
    """The non-empty keys of a row's messages that its format does not read."""
    return unread_keys(row, columns_read(known, row), weighed=use != "pairs")


def reasoned(known: Format, row: Row) -> Row:
    """The row with the assistant's reasoning put in front of its answers."""
    return with_reasoning(row, columns_read(known, row))
