"""Readers of data sets, called with a file alone, and what they gave as lists."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from data.prepare import preferences, problems
from data.prepare.overlap import Repeated, Rules
from data.prepare.prepare import prepare
from data.prepare.reading import Reading, Tally
from data.rows import SPLITS, Pair, Problem, Split
from data.storage import read_rows
from tasks.datasets.problems import ProblemSource, note_further, require_every_split

NO_RULES = Rules()


@dataclass(frozen=True)
class ReadProblems:
    problems: list[Problem]
    rows: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class ReadPairs:
    pairs: list[Pair]
    rows: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Loaded:
    splits: dict[str, list[Problem]]
    rows: int
    dropped: dict[str, int]
    repeated: list[Repeated]


def read_problems(path: Path, split: Split | None, has_answer: Callable[[str], bool] | None) -> ReadProblems:
    tally = Tally()
    found = list(problems.read_problems(Reading(path), split, has_answer, tally))
    return ReadProblems(found, tally.rows, dict(tally.dropped))


def read_few_shot(path: Path) -> list[dict[str, str]]:
    return problems.read_few_shot(Reading(path))


def read_pairs(path: Path) -> ReadPairs:
    tally = Tally()
    found = list(preferences.read_pairs(Reading(path), tally))
    return ReadPairs(found, tally.rows, dict(tally.dropped))


def load_problems(source: ProblemSource, seed: int, rules: Rules = NO_RULES) -> Loaded:
    """All problems as a loop gets them; overlaps are looked for only if asked."""

    with TemporaryDirectory() as folder:
        tally, found = prepare(replace(source.preparation(seed), rules=rules), Path(folder), note_further)
        require_every_split(source, tally, found)
        files = {split: Path(folder) / f"{split}.parquet" for split in SPLITS}
        splits = {split: list(read_rows(Problem, file)) if file.exists() else [] for split, file in files.items()}
    assert {split: len(rows) for split, rows in splits.items()} == {s: c.total() for s, c in found.sources.items()}
    dropped = {reason: count for reason, count in (tally.dropped + found.dropped).items() if count}
    return Loaded(splits, tally.rows, dropped, found.repeated)
