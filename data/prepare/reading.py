"""Records of a data set: its rows, each read by the format that its columns indicate."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.formats import (
    FORMATS,
    ContentError,
    Detected,
    Format,
    FormatError,
    LeftOutError,
    Record,
    Row,
    RowError,
    Use,
    detect,
    help_towards,
    holding_unread,
    missing,
    named,
    nearest,
    reasoned,
    records,
    unclear_labels,
    unread_columns,
    unread_of_messages,
    without_twice,
)
from data.formats.message import REASONING
from data.prepare.hygiene import cleaned, has_hidden, has_placeholder
from data.prepare.sources import DataFileError, FilesRead, located_rows
from data.rows import Split
from data.wording import counted

# Notices about rows, worded to follow "In 3 rows: ".
UNREAD = "not read of a message:"
LATER = "not read, and not a column of the first row:"
KEPT = ", which reasoning: keep puts in front of its text"
UNCLEAR = "says neither that the answer is liked nor that it is not, so the answer is used"
UNWEIGHTED = "an answer before the last has weight 0, which only train.loss_on: last leaves unlearned"
UNFILLED = "names in double braces stay as they stand; placeholders: {name: …} fills one in"

NO_ANSWERS = (
    "Its rows have no answers: use them in a flow that learns from its own answers, such as rest-em, with a reward "
    "that needs no reference, such as judge or reward-model."
)

HAVE_PROMPTS_WRITTEN = (
    "Have a model write the prompts: autodidact data format DATA --write-prompts.model MODEL. What that writes are "
    "demonstrations."
)


@dataclass
class Tally:
    """Counts and notices from reading a data set.

    Attributes:
        rows: rows read.
        dropped: rows that could not be used, by reason.
        first: the first row of each reason and of each notice with a known place, described.
        hidden: records with invisible characters, such as zero-width spaces. They are used unchanged.
        noticed: rows of which something is left out or left unchanged, by notice.
        cut: prompts whose beginning was cut off to leave room for an answer.
        formats: names of the formats found, and why each was chosen.
        files: the files read and the files skipped.
    """

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    hidden: int = 0
    noticed: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    formats: dict[str, str] = field(default_factory=dict)
    files: FilesRead = field(default_factory=FilesRead)

    def drop(self, reason: str, where: str) -> None:
        self.dropped[reason] += 1
        self.first.setdefault(reason, where)

    def notice(self, what: str, where: str) -> None:
        self.noticed[what] += 1
        self.first.setdefault(what, where)

    def said(self) -> list[str]:
        """The notices, one sentence each."""
        return [
            f"In {counted(count, 'row')}: {what}." + (f" The first: {self.first[what]}." if what in self.first else "")
            for what, count in sorted(self.noticed.items())
        ]


@dataclass(frozen=True)
class Reading:
    """How a data set is read.

    Attributes:
        source: see `data.prepare.sources.located_rows`.
        format: name of its format; None: recognized by its columns.
        columns: the format's column names mapped to the file's.
        drop: count unusable rows and leave them out, instead of refusing the data set.
        placeholders: the text for each `{{name}}`. Others stay unchanged.
        reasoning: put an assistant's reasoning, if a message has it separately, in front of its content.
        every_answer: the earlier answers of a conversation are learned as well.
        only: the splits whose files are read, see `data.prepare.sources.names.serving`; None: all.
    """

    source: Path
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    placeholders: Mapping[str, str] = field(default_factory=dict)
    reasoning: bool = False
    every_answer: bool = False
    only: frozenset[Split | None] | None = None


def read_records(reading: Reading, use: Use, tally: Tally) -> Iterator[tuple[str, Record]]:
    """The records of a data set, each with the place of its row. A pair of equal sides is counted and left out.

    Args:
        use: what they are to serve as.
        tally: updated while reading.

    Raises:
        DataFileError: a file cannot be read or cannot serve as `use`, or a row cannot be used.
    """
    last: Detected | None = None  # the format of the previous rows
    told: set[str] = set()  # columns of the rows that a format was detected from; its reason names those not read

    def unreadable(reason: str, where: str) -> None:
        tally.rows += 1
        tally.drop(reason, where)

    drop = unreadable if reading.drop else None
    for at, row, file_split in located_rows(reading.source, tally.files, drop, reading.only):
        tally.rows += 1
        renamed = _renamed(row, reading)
        known = last
        try:
            if known is None or (reading.format is None and missing(known.format, renamed)):
                known = _format(reading, renamed, use, known)
            if known is not last and not missing(known.format, renamed):
                last = known
                tally.formats.setdefault(known.format.name, known.reason)
                told |= renamed.keys()
            once = without_twice(known.format, renamed, reading.columns)
            said = reasoned(known.format, once) if reading.reasoning else once
            found = list(records(known.format, said, use))
            tally.noticed.update(map(_unread, unread_of_messages(known.format, said, use)))
            tally.noticed.update(f"{name!r} {UNCLEAR}" for name in unclear_labels(known.format, said))
            if not renamed.keys() <= told:
                tally.noticed.update(f"{LATER} {name!r}" for name in holding_unread(known.format, said, told))
            for record in found:
                record = cleaned(record, None if use == "programs" else reading.placeholders)
                _notice(record, reading, use, tally)
                if use == "pairs" and (record.response or "").split() == (record.rejected or "").split():
                    tally.drop("equal_sides", at)
                else:
                    yield at, replace(record, file_split=file_split) if file_split else record
        except FormatError as problem:
            raise DataFileError(f"{at}: {problem.what}", problem.why, problem.what_next) from None
        except RowError as problem:
            if not reading.drop and not isinstance(problem, LeftOutError):
                advice = "" if isinstance(problem, ContentError) else _needs(known)
                raise DataFileError(
                    f"{at}: {_sentence(problem)}",
                    advice,
                    "Correct or remove the row, or leave such rows out with unusable: drop.",
                ) from None
            tally.drop(problem.reason, f"{at}: {problem}")
        except RecursionError:
            if not reading.drop:
                raise DataFileError(f"{at}: nested too deeply to be read.", what_next="Remove the row.") from None
            tally.drop("nested too deep", at)


def _unread(key: str) -> str:
    return f"{UNREAD} {key!r}{KEPT if key in REASONING else ''}"


def _notice(record: Record, reading: Reading, use: Use, tally: Tally) -> None:
    """Count invisible characters and unfilled placeholders, and refuse to learn what has weight 0.

    Raises:
        ContentError: an earlier answer has weight 0, but all answers are learned.
    """
    if record.unweighted and reading.every_answer:
        raise ContentError(
            "weight 0 before the answer",
            "an answer before the last has weight 0, but train.loss_on: all would learn it. Set train.loss_on: last",
        )
    tally.hidden += has_hidden(record)
    tally.noticed.update([UNWEIGHTED] * record.unweighted)
    tally.noticed.update([UNFILLED] * (use != "programs" and has_placeholder(record)))


def first_use(reading: Reading) -> Use:
    """The first use that the rows of a data set can serve as.

    Raises:
        DataFileError: a file that cannot be read, is empty, or has columns of no format.
    """
    unread = Tally()
    drop = unread.drop if reading.drop else None
    for at, row, _ in located_rows(reading.source, drop=drop, only=reading.only):
        try:
            return _format(reading, _renamed(row, reading), None, None).format.uses[0]
        except FormatError as problem:
            raise DataFileError(f"{at}: {problem.what}", problem.why, problem.what_next) from None
    if count := unread.dropped.total():
        first = next(iter(unread.first.values()))
        raise DataFileError(f"None of {counted(count, 'row')} can be read. {first}.", what_next="Correct the file.")
    raise DataFileError(f"{reading.source} is empty.", what_next="Give a data set with at least one row.")


def _renamed(row: Row, reading: Reading) -> Row:
    return {**row, **{ours: row[theirs] for ours, theirs in reading.columns.items() if theirs in row}}


def _format(reading: Reading, row: Row, use: Use | None, before: Detected | None) -> Detected:
    """The format of the first row, or of one that lacks columns of the previous rows' format."""
    try:
        known = detect(row) if reading.format is None else _named(named(reading.format), row)
    except FormatError:
        if before is None:
            raise
        known = before
    serves = use is None or use in known.format.uses
    if before and (not serves or missing(known.format, row)):
        fitting = [before.format, *(known for known in FORMATS if use in known.uses)]
        return Detected(nearest(row, fitting), "it is the nearest")
    if use is not None and not serves:
        raise _other_use(known, row, use)
    return known


def _named(known: Format, row: Row) -> Detected:
    return Detected(known, f"it was named{unread_columns(known, row)}")


def _other_use(known: Detected, row: Row, use: Use) -> FormatError:
    """The error for rows of another use; for prompts alone, it says which columns they lack."""
    uses = " or ".join(known.format.uses)
    lacks, mend = "", ""
    if known.format.uses == ("prompts",):
        lacks, mend = help_towards(nearest(row, [other for other in FORMATS if use in other.uses]), row)
        lacks = f"{NO_ANSWERS} {lacks}"
    if known.format.uses == ("passages",):
        mend = HAVE_PROMPTS_WRITTEN
    return FormatError(
        f"this is {known.format.name} ({known.format.about}): {known.reason}.",
        lacks,
        f"It can serve as {uses}, not as {use}. {mend}".strip(),
    )


def _sentence(problem: RowError) -> str:
    return str(problem) if str(problem).endswith(".") else f"{problem}."


def _needs(known: Detected | None) -> str:
    columns = known.format.needs if known else ["the columns of its format"]
    needs = " and ".join(" or ".join(name.split("|")[:2]) for name in columns)
    return f"Every row needs {needs}."
