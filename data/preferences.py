"""Preference pairs from a user's data set. Pairs that a policy wrote are made elsewhere."""

from collections import Counter
from dataclasses import dataclass

from data.reading import Reading, Tally, read_records
from data.rows import Pair, problem_id
from data.sources import DataFileError


@dataclass(frozen=True)
class PairFile:
    """What reading one data set came to: `dropped` counts pairs by reason, "equal_sides" and "duplicate" among them."""

    pairs: list[Pair]
    rows: int
    dropped: dict[str, int]


def read_pairs(reading: Reading) -> PairFile:
    """Read the pairs of a data set.

    A pair whose sides differ in white space only is dropped, and so is one whose prompt and sides were there before.

    Raises:
        DataFileError: missing, empty or malformed file; a row of another format, or without prompt, chosen or rejected
            text; a file all of whose pairs have equal sides.
    """
    pairs: dict[tuple[str, str, str], Pair] = {}
    per_prompt: Counter[str] = Counter()
    tally, source = Tally(), reading.source.name
    dropped = tally.dropped
    for _, record in read_records(reading, "pairs", tally):
        identity, chosen, rejected = problem_id(record.messages), record.response or "", record.rejected or ""
        key = (identity, chosen, rejected)
        if key in pairs:
            dropped["duplicate"] += 1
        else:
            index = per_prompt[identity]
            pairs[key] = Pair(identity, index, record.messages, chosen, rejected, None, None, source, source)
            per_prompt[identity] += 1
    if not tally.rows:
        raise DataFileError(f"{reading.source} is empty. Give a data set with one pair per row.")
    if not pairs and dropped["equal_sides"] < tally.rows:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        raise DataFileError(f"{reading.source}: none of its {tally.rows} rows is a pair to learn from ({reasons}).")
    if not pairs:
        raise DataFileError(
            f"{reading.source}: the two sides are equal in every one of its {tally.rows} rows, so nothing can be "
            f"learned from it. Check that whatever wrote the file did not copy the same response into both fields."
        )
    return PairFile(list(pairs.values()), tally.rows, dict(dropped))
