"""Passages: texts without a prompt, as read from a data set. written_prompts.py has their prompts written."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from data.prepare.reading import Reading, Tally, read_records
from data.prepare.similar import scratch_database
from data.prepare.sources import DataFileError
from data.wording import counted


@dataclass(frozen=True, slots=True)
class Passage:
    """A text, its place in the data set, and the split given by the file's name, if any."""

    id: str
    text: str
    source: str
    place: str
    split: str | None

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [(name, pa.string()) for name in ("id", "text", "source", "place", "split")]
    )


def read_passages(reading: Reading, shortest: int, longest: int, tally: Tally) -> Iterator[Passage]:
    """Read the distinct passages of a data set, one after another, stripped of surrounding white space.

    Args:
        shortest, longest: in characters; other passages are counted and left out.
        tally: updated while reading.

    Raises:
        DataFileError: missing, empty or malformed file; a row of another format; no usable passage.
    """
    found = 0
    with tempfile.TemporaryDirectory() as folder, closing(scratch_database(Path(folder) / "seen.sqlite")) as seen:
        seen.execute("CREATE TABLE passage (id TEXT PRIMARY KEY) WITHOUT ROWID")
        for at, record in read_records(reading, "passages", tally):
            text = (record.response or "").strip()
            identity = hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]
            if len(text) < shortest:
                tally.drop("passage too short", f"{at}: {len(text):,} characters")
            elif len(text) > longest:
                tally.drop("passage too long", f"{at}: {len(text):,} characters")
            elif not seen.execute("INSERT OR IGNORE INTO passage VALUES (?)", (identity,)).rowcount:
                tally.drop("passage again", at)
            else:
                found += 1
                yield Passage(identity, text, record.source or reading.source.name, at, record.file_split)
    if not found:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.dropped.items())
        raise DataFileError(
            f"{reading.source}: {counted(tally.rows, 'row')} read, and none is a passage of {shortest:,} to "
            f"{longest:,} characters"
            f"{f' ({reasons})' if reasons else ''}.",
            what_next="Give longer or shorter texts, or set write_prompts.shortest or write_prompts.longest.",
        )
