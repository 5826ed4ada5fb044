"""Readers of data sets, called with a file alone."""

from collections.abc import Callable
from pathlib import Path

from data import preferences, problems
from data.preferences import PairFile
from data.problems import ProblemFile
from data.reading import Reading
from data.rows import Split


def read_problems(
    path: Path, split: Split | None, has_answer: Callable[[str], bool] | None, limit: int | None = None
) -> ProblemFile:
    return problems.read_problems(Reading(path), split, has_answer, limit)


def read_few_shot(path: Path) -> list[dict[str, str]]:
    return problems.read_few_shot(Reading(path))


def read_pairs(path: Path) -> PairFile:
    return preferences.read_pairs(Reading(path))
