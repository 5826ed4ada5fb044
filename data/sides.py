"""Two policies' answers to the same prompts, side by side: what a judge has to compare, and what needs no judge."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from data.rows import Problem, Sample
from data.win_rate import Comparison

OURS, THEIRS = 0, 1  # the index of a side's sample


@dataclass
class Sides:
    """What is known about two sides' answers without a judge.

    Attributes:
        lengths: of ours and theirs, in characters, by prompt, in order.
        same: prompts that both answer identically.
        truncated: number of truncated answers of each side.
        without_gold: prompts left out because they have no gold answer to compare with.
    """

    lengths: dict[str, tuple[int, int]] = field(default_factory=dict)
    same: set[str] = field(default_factory=set)
    truncated: tuple[int, int] = (0, 0)
    without_gold: int = 0

    @property
    def asked(self) -> int:
        """Number of prompts that a judge has to compare."""
        return len(self.lengths) - len(self.same)

    def add(self, ours: Sample, theirs: Sample) -> None:
        self.lengths[ours.problem_id] = len(ours.text), len(theirs.text)
        self.truncated = self.truncated[OURS] + ours.truncated, self.truncated[THEIRS] + theirs.truncated
        if ours.text == theirs.text:
            self.same.add(ours.problem_id)

    def comparisons(self, preferences: Mapping[str, float | None]) -> list[Comparison]:
        """Every prompt with a known result: the judge's preference for our answer, or a tie for identical answers."""
        known = {**preferences, **dict.fromkeys(self.same, 0.5)}
        found = ((problem, known.get(problem), lengths) for problem, lengths in self.lengths.items())
        return [Comparison(problem, value, *lengths) for problem, value, lengths in found if value is not None]


def side_by_side(
    problems: Iterable[Problem], ours: Iterable[Sample], theirs: Iterable[Sample] | None, sides: Sides
) -> Iterator[tuple[Sample, Sample]]:
    """The two answers to each prompt that a judge has to compare, ours with index 0, theirs with 1; fills in `sides`.

    Args:
        problems: the problems to compare on.
        ours: one answer to each of them, in the same order; there may be more.
        theirs: the same; None: the problems' gold answers.

    Raises:
        ValueError: answers to other prompts, or too few.
    """
    mine, others = iter(ours), None if theirs is None else iter(theirs)
    for problem in problems:
        one, other = next(mine, None), _gold(problem) if others is None else next(others, None)
        if other is None and others is None:
            sides.without_gold += 1
            continue
        if one is None or other is None or {one.problem_id, other.problem_id} != {problem.id}:
            raise ValueError(f"The two sides did not both answer problem {problem.id}, or in different orders.")
        sides.add(one, other)
        if one.text != other.text:
            yield replace(one, index=OURS), replace(other, index=THEIRS)


def _gold(problem: Problem) -> Sample | None:
    if problem.response is None:
        return None
    return Sample(problem.id, 0, problem.response, [], "stop", "gold", 0, "")
