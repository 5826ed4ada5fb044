"""Problems of one or more data sets as disjoint splits: duplicates, near-duplicates and leaks left out and counted.

Everything passes through files, so memory does not grow with the number of problems.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data.prepare.overlap import TRAIN, Overlaps, Repeated, Rules
from data.prepare.similar import scratch_database
from data.prepare.sources import DataFileError
from data.rows import SPLITS, Problem, Split
from data.storage import RowWriter, read_rows, write_rows

DUPLICATE = "duplicate"
HELD_OUT = "held_out"  # the file of further prompts that training must not repeat


class MixtureError(DataFileError):
    """The available problems are too few for the mixture."""


@dataclass
class Splitting:
    """The result of splitting.

    Attributes:
        dropped: problems left out, by reason.
        sources: problems of each split, by source.
        contaminated: training problems that repeat held-out ones, left out or not.
        repeated: examples: the first near-duplicates and the first contaminated problems.
    """

    dropped: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    contaminated: int = 0
    repeated: list[Repeated] = field(default_factory=list)


def write_splits(
    problems: Iterable[Problem],
    held_out: Iterable[Problem],
    folder: Path,
    rules: Rules,
    limits: Mapping[str, int | None],
    weights: Mapping[str, float],
    seed: int,
    finish: Callable[[Problem], Problem],
) -> Splitting:
    """Write problems to one Parquet file per split, and the further held-out ones to `held_out.parquet`.

    A split without problems has no file.

    A prompt that occurs several times is kept once: in the split that is evaluated last, at its first place there.

    Args:
        problems: each with its split.
        held_out: further prompts that training must not repeat.
        limits: maximum number of problems per split.
        weights: by source, the proportions in which training problems are drawn, as many as possible without drawing
            one twice. Empty: all of them.
        seed: of that draw.
        finish: applied to each problem at the end.

    Raises:
        MixtureError: no problem can be drawn from a source.
    """
    result, spool = Splitting(), folder / ".spool"
    spool.mkdir(parents=True)
    files = {split: spool / f"{split}.parquet" for split in SPLITS} | {HELD_OUT: folder / f"{HELD_OUT}.parquet"}
    with ExitStack() as stack:
        writers: dict[str, RowWriter] = {
            split: stack.enter_context(RowWriter(Problem, files[split])) for split in SPLITS
        }
        for problem in problems:
            writers[problem.split].write(problem)
    further = write_rows(Problem, files[HELD_OUT], held_out)
    with closing(scratch_database(spool / "seen.sqlite")) as seen:
        seen.execute("CREATE TABLE seen (id TEXT PRIMARY KEY, split TEXT) WITHOUT ROWID")
        for split in reversed(SPLITS):
            training = split == TRAIN
            with closing(Overlaps(rules if training else Rules(), spool, files)) as overlaps:
                unique = _unique(split, read_rows(Problem, files[split]), seen, result.dropped)
                apart = (p for p in unique if not overlaps.leave_out(p.id, p.messages, result.dropped))
                counts = Counter[str]()
                write_rows(Problem, spool / "apart.parquet", _counted(apart, counts))
                result.contaminated += overlaps.contaminated
                result.repeated += overlaps.shown()
            rows = read_rows(Problem, spool / "apart.parquet")
            if training and weights:
                rows = _drawn(rows, counts, quotas(counts, weights, limits.get(split)), seed)
            kept = result.sources[split] = Counter[str]()
            file = folder / f"{split}.parquet"
            if not write_rows(Problem, file, map(finish, _counted(islice(rows, limits.get(split)), kept))):
                file.unlink()
            if left := counts.total() - kept.total():
                result.dropped["not_drawn" if training and weights else f"over_limit_{split}"] = left
    if not further:
        files[HELD_OUT].unlink()
    shutil.rmtree(spool)
    return result


def quotas(counts: Mapping[str, int], weights: Mapping[str, float], limit: int | None) -> dict[str, int]:
    """How many problems to draw from each source, in proportion to the weights, without drawing any twice.

    Raises:
        MixtureError: a source would get none.
    """
    scale = min(counts.get(source, 0) / weight for source, weight in weights.items())
    if limit is not None:
        scale = min(scale, limit / sum(weights.values()))
    drawn = {source: int(weight * scale + 1e-9) for source, weight in weights.items()}
    if none := [source for source, number in drawn.items() if number == 0]:
        there = ", ".join(f"{source}: {counts.get(source, 0):,} at weight {w:g}" for source, w in weights.items())
        raise MixtureError(
            f"No training problem can be drawn from {', '.join(none)}.",
            f"There are {there}{'' if limit is None else f', at most {limit:,} in all'}.",
            "Give it more problems of its own, change its weight, raise the limit, or leave it out of the mixture.",
        )
    return drawn


def _unique(split: Split, problems: Iterable[Problem], seen: Any, dropped: Counter[str]) -> Iterator[Problem]:
    for problem in problems:
        if seen.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (problem.id, split)).rowcount:
            yield problem
        else:
            (where,) = seen.execute("SELECT split FROM seen WHERE id = ?", (problem.id,)).fetchone()
            dropped[DUPLICATE if where == split else f"{split}_also_in_held_out"] += 1


def _counted(problems: Iterable[Problem], counts: Counter[str]) -> Iterator[Problem]:
    for problem in problems:
        counts[problem.source] += 1
        yield problem


def _drawn(
    problems: Iterable[Problem], counts: Mapping[str, int], wanted: Mapping[str, int], seed: int
) -> Iterator[Problem]:
    """Draw the wanted number of problems from each source, uniformly (Knuth 3.4.2, algorithm S)."""
    rng = random.Random(seed)
    left, missing = dict(counts), dict(wanted)
    for problem in problems:
        source = problem.source
        if rng.random() * left[source] < missing[source]:
            missing[source] -= 1
            yield problem
        left[source] -= 1
