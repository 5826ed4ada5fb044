"""Preference pairs from a user's data set. Pairs that a policy wrote are made elsewhere."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from data.prepare.reading import Reading, Tally, read_records
from data.prepare.similar import scratch_database
from data.prepare.sources import DataFileError, named_splits
from data.prepare.sources.names import serving
from data.prepare.splits import DUPLICATE
from data.rows import Pair, Split, problem_id
from data.wording import counted


def is_held_out(identity: str, share: float) -> bool:
    """Whether a prompt's pairs are held out, by the hash of the prompt alone, so added rows change nothing.

    Args:
        identity: the prompt's id, see `data.rows.problem_id`.
        share: expected share of held-out prompts, from 0 to 1.
    """
    return bool(int(identity, 16) / 16 ** len(identity) < share)


def read_pairs(reading: Reading, tally: Tally, split: Split = "train") -> Iterator[Pair]:
    """Read the pairs of a data set, one after another.

    A pair whose sides differ only in white space is left out, and so is a repeated pair of the same prompt.

    Args:
        tally: updated while reading.
        split: the split that they serve as; in a folder with held-out files, those files are read for held-out splits.

    Raises:
        DataFileError: missing, empty or malformed file; a row of another format, or without prompt, chosen or rejected
            text; a file without any pair to learn from.
    """
    source, found = reading.source.name, 0
    reading = replace(reading, only=serving(split, named_splits(reading.source)))
    with tempfile.TemporaryDirectory() as folder, closing(scratch_database(Path(folder) / "seen.sqlite")) as seen:
        seen.execute("CREATE TABLE pair (key TEXT PRIMARY KEY) WITHOUT ROWID")
        seen.execute("CREATE TABLE prompt (id TEXT PRIMARY KEY, pairs INTEGER) WITHOUT ROWID")
        for at, record in read_records(reading, "pairs", tally):
            identity, chosen, rejected = problem_id(record.messages), record.response or "", record.rejected or ""
            sides = hashlib.sha256(f"{chosen}\x1e{rejected}".encode()).hexdigest()
            if not seen.execute("INSERT OR IGNORE INTO pair VALUES (?)", (identity + sides,)).rowcount:
                tally.drop(DUPLICATE, at)
                continue
            (index,) = seen.execute(
                "INSERT INTO prompt VALUES (?, 0) ON CONFLICT DO UPDATE SET pairs = pairs + 1 RETURNING pairs",
                (identity,),
            ).fetchone()
            found += 1
            yield Pair(identity, index, record.messages, chosen, rejected, None, None, source, source)
    if not tally.rows:
        raise DataFileError(f"{reading.source} is empty.", what_next="Give a data set with one pair per row.")
    if not found and tally.dropped["equal_sides"] < tally.rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.dropped.items())
        raise DataFileError(
            f"{reading.source}: {counted(tally.rows, 'row')} read, and none is a pair to learn from ({reasons}).",
            what_next="Give a data set with a better and a worse answer in each row.",
        )
    if not found:
        raise DataFileError(
            f"{reading.source}: the two sides are equal in all of its {tally.rows} rows, so nothing can be "
            "learned from it.",
            what_next="Check that whatever wrote the file did not copy the same response into both fields.",
        )
