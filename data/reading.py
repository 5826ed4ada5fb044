"""Records of a data set: its rows, each read by the format that its columns tell."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.formats import (
    FORMATS,
    ContentError,
    Detected,
    FormatError,
    LeftOutError,
    Record,
    Row,
    RowError,
    Use,
    detect,
    missing,
    named,
    nearest,
    records,
)
from data.hygiene import cleaned, has_hidden
from data.sources import DataFileError, located_rows

NO_ANSWERS = (
    "Its rows hold no answers: they are for a flow that learns from answers of its own, such as rest-em, with a reward "
    "that looks at no reference, such as judge or reward-model."
)


@dataclass
class Tally:
    """What reading came to.

    Attributes:
        rows: rows read.
        dropped: those that could not be used, by reason.
        first: the first of each reason, in words.
        hidden: records with characters that nobody sees, such as zero-width spaces. They are used as they are.
        cut: prompts of which the beginning was cut off, to leave room for an answer.
        formats: names of the formats met, and why each was taken.
    """

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    hidden: int = 0
    cut: int = 0
    formats: dict[str, str] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        self.dropped[reason] += 1
        self.first.setdefault(reason, where)


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        source: see `data.sources.located_rows`.
        format: name of its format; None to tell it by the columns.
        columns: the format's name of a column to the file's.
        drop: count rows that cannot be used and leave them out, instead of refusing the data set.
        placeholders: what each `{{name}}` in its texts stands for.
    """

    source: Path
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    placeholders: Mapping[str, str] = field(default_factory=dict)


def read_records(reading: Reading, use: Use, tally: Tally) -> Iterator[tuple[str, Record]]:
    """The records of a data set, each with the place of its row. A pair of equal sides is counted and left out.

    Args:
        use: what they are to serve as.
        tally: is filled in on the way.

    Raises:
        DataFileError: a file that cannot be read, or that cannot serve as that; a row that cannot be used.
    """
    last: Detected | None = None  # the format of the rows before
    for at, row in located_rows(reading.source):
        tally.rows += 1
        renamed = _renamed(row, reading)
        known = last
        try:
            if known is None or (reading.format is None and missing(known.format, renamed)):
                known = _format(reading, renamed, use, known)
            if known is not last and not missing(known.format, renamed):
                last = known
                tally.formats.setdefault(known.format.name, known.reason)
            for record in records(known.format, renamed, use):
                record = cleaned(record, None if use == "programs" else reading.placeholders)
                tally.hidden += has_hidden(record)
                if use == "pairs" and (record.response or "").split() == (record.rejected or "").split():
                    tally.drop("equal_sides", at)
                else:
                    yield at, record
        except FormatError as problem:
            raise DataFileError(f"{at}: {problem.what}", problem.why, problem.what_next) from None
        except RowError as problem:
            if not reading.drop and not isinstance(problem, LeftOutError):
                advice = "" if isinstance(problem, ContentError) else _needs(known)
                raise DataFileError(
                    f"{at}: {_sentence(problem)}",
                    advice,
                    "Correct or remove the row, or have such rows left out: unusable: drop.",
                ) from None
            tally.drop(problem.reason, f"{at}: {problem}")
        except RecursionError:
            if not reading.drop:
                raise DataFileError(f"{at}: nested too deep to be read.", what_next="Remove the row.") from None
            tally.drop("nested too deep", at)


def first_use(reading: Reading) -> Use:
    """What the rows of a data set serve as first of all.

    Raises:
        DataFileError: a file that cannot be read, is empty, or has columns of no format.
    """
    for at, row in located_rows(reading.source):
        try:
            return _format(reading, _renamed(row, reading), None, None).format.uses[0]
        except FormatError as problem:
            raise DataFileError(f"{at}: {problem.what}", problem.why, problem.what_next) from None
    raise DataFileError(f"{reading.source} is empty.", what_next="Give a data set with at least one row.")


def _renamed(row: Row, reading: Reading) -> Row:
    return {**row, **{ours: row[theirs] for ours, theirs in reading.columns.items() if theirs in row}}


def _format(reading: Reading, row: Row, use: Use | None, before: Detected | None) -> Detected:
    """The format of the first row, or of one that lacks columns of the format of those before."""
    try:
        known = detect(row) if reading.format is None else Detected(named(reading.format), "it was named")
    except FormatError:
        if before is None:
            raise
        known = before
    serves = use in (None, "prompts") or use in known.format.uses  # every row has a prompt
    if before and (not serves or missing(known.format, row)):
        fitting = [before.format, *(known for known in FORMATS if use in known.uses)]
        return Detected(nearest(row, fitting), "it comes nearest")
    if not serves:
        raise FormatError(
            f"this is {known.format.name} ({known.format.about}): {known.reason}.",
            NO_ANSWERS if known.format.uses == ("prompts",) else "",
            f"It can serve as {' or '.join(known.format.uses)}, not as {use}.",
        )
    return known


def _sentence(problem: RowError) -> str:
    return str(problem) if str(problem).endswith(".") else f"{problem}."


def _needs(known: Detected | None) -> str:
    columns = known.format.needs if known else ["the columns of its format"]
    needs = " and ".join(name.replace("|", " or ") for name in columns)
    return f"Every row needs {needs}."
