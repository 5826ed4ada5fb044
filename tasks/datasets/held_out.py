"""What can be measured on the held-out sets of a loop on gold answers, determined from their first rows."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from data.prepare.problems import read_problems
from data.prepare.reading import Tally, first_use
from data.prepare.sources import DataFileError, is_here
from data.rows import Problem
from tasks.datasets.problems import ProblemSource

LOOKED_AT = 100  # rows of each data set
ENOUGH = 0.9  # share of these; the others then count as mistakes, which reading reports


@dataclass(frozen=True)
class Measurable:
    """What can be measured on held-out rows.

    Attributes:
        verified: answers to them can be graded.
        gold: they have gold answers, whose likelihood can be measured.
    """

    verified: bool
    gold: bool


def measurable(source: ProblemSource) -> Measurable:
    """Look at the first rows of all held-out sets.

    A set that does not exist yet counts as fully measurable.
    """
    if source.problems is None and source.validation is None and source.test is None:
        return Measurable(verified=True, gold=True)
    paths = [path for path in (source.validation, source.test) if path is not None]
    if len(paths) < 2 and source.problems is not None:
        paths.append(source.problems)
    found = [_look(source, path) for path in paths]
    return Measurable(all(one.verified for one in found), all(one.gold for one in found))


def _look(source: ProblemSource, path: Path) -> Measurable:
    if not is_here(path):
        return Measurable(verified=True, gold=True)
    use, can_grade = source.judged_by(trained=False)
    graded: list[bool] = []

    def grade(reference: str | None) -> bool:
        graded.append(can_grade(reference))
        return True

    try:
        rows = list(islice(_rows(source, path, grade), LOOKED_AT))
    except DataFileError:  # of another use, or unusable, which is reported when they are read
        return Measurable(verified=False, gold=not _are_prompts(source, path))
    share = sum(graded) / len(graded) if graded else 0.0
    answered = sum(bool(row.response) for row in rows)
    return Measurable(use == "prompts" or share >= ENOUGH, not rows or answered / len(rows) >= ENOUGH)


def _are_prompts(source: ProblemSource, path: Path) -> bool:
    try:
        return first_use(source.reading(path)) == "prompts"
    except DataFileError:
        return False


def _rows(source: ProblemSource, path: Path, grade: Callable[[str | None], bool]) -> Iterator[Problem]:
    use, _ = source.judged_by(trained=False)
    return read_problems(replace(source.reading(path), drop=True), None, grade, Tally(), use)
