"""The formats of data sets, told by their columns, and what a row of each says.

To add a format, write its reader and its line in the file of its kind; nothing else has to know of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.errors import AutodidactError
from data.formats import instructions, own, preferences, verifiable
from data.formats.record import ContentError, Format, LeftOutError, Message, Record, Row, RowError, Use

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
    *preferences.FORMATS,
    *instructions.FORMATS,
    *own.FORMATS,
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
    """The format whose columns a row has; of several, the one that needs most of them.

    Raises:
        FormatError: none; with the one that comes nearest, and what it lacks.
    """
    fitting = [known for known in FORMATS if not missing(known, row) and known.fits(row)]
    if fitting:
        best = max(fitting, key=lambda known: len(known.needs))
        read = [name for name in (*needed(best, row), *best.optional.split()) if name in row]
        unread = [name for name in row if name not in read]
        reason = f"it has {', '.join(read)}" + (f"; not read: {', '.join(unread)}" if unread else "")
        return Detected(best, reason)
    near = nearest(row, FORMATS)
    raise FormatError(
        f"No format has the columns {', '.join(map(repr, row)) or 'none'}.",
        f"The nearest is {near.name} ({near.about}), which also needs {', '.join(map(repr, missing(near, row)))}.",
        f"Name the format, or map its columns to yours, as in columns: {{{missing(near, row)[0].split('|')[0]}: <your "
        "column>}.",
    )


def nearest(row: Row, formats: Sequence[Format]) -> Format:
    """The format of whose columns a row has the largest share, but not all; of equals, the first."""
    return max(
        (known for known in formats if missing(known, row)),
        key=lambda known: 1 - len(missing(known, row)) / len(known.needs),
    )


def missing(known: Format, row: Row) -> list[str]:
    """The columns that a format needs and a row lacks."""
    return [name.split("|")[0] for name in known.needs if not any(choice in row for choice in name.split("|"))]


def needed(known: Format, row: Row) -> list[str]:
    """The row's own names of the columns that a format needs."""
    return [next(choice for choice in name.split("|") if choice in row) for name in known.needs]


def records(known: Format, row: Row, use: Use) -> Iterator[Record]:
    """What a row says.

    Raises:
        RowError: the row cannot be used.
    """
    if lacks := missing(known, row):
        raise RowError("no " + lacks[0], f"no {lacks[0]!r} (fields {', '.join(map(repr, row)) or 'none'})")
    read = known.demonstrate if use == "demonstrations" and known.demonstrate else known.read
    yield from read(row)
