"""All problems of a loop, from their data sets to one file per split, in one pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data import arithmetic
from data.formats import Message, Use
from data.prepare.overlap import Rules
from data.prepare.problems import read_few_shot, read_problems, with_prefix, with_system
from data.prepare.prompt_lengths import PromptLengths
from data.prepare.reading import Reading, Tally, first_use
from data.prepare.splits import Splitting, write_splits
from data.rewards.final_answer import close as close_math_worker
from data.rows import SPLITS, Problem, Split

Note = Callable[[Path, Tally], None]  # receives the tally of a data set that is in no other tally


@dataclass(frozen=True)
class ProblemSet:
    """A data set of problems.

    Attributes:
        name: its name in the rows.
        use: what its rows are read as; None: anything, for their prompts alone.
        can_grade: whether a reference can be graded; None: nothing is graded.
    """

    reading: Reading
    name: str
    use: Use | None = None
    can_grade: Callable[[str | None], bool] | None = None


@dataclass(frozen=True)
class Preparation:
    """Everything that decides which problems a loop gets.

    Attributes:
        given: data sets split by their rows or by hash; several make a mixture.
        apart: splits that are data sets of their own.
        further: data sets that training must not repeat, which are in no split.
        embedded: embedded problems, by the split that they serve as.
        worked: whether the embedded training problems have worked answers.
        few_shot: examples put in front of every problem.
        system: system message for every problem that has none.
        lengths: handles prompts that leave no room for an answer; None if no prompt is answered.
        rules: which training prompts are left out because they overlap with others.
        limits: maximum number of problems per split.
        weights: the proportions of a mixture, by name of a data set.
        seed: of the embedded problems and of sampling.
    """

    given: tuple[ProblemSet, ...]
    apart: Mapping[Split, ProblemSet]
    further: tuple[ProblemSet, ...]
    embedded: Mapping[str, Split]
    worked: bool
    few_shot: Reading | None
    system: str | None
    limits: Mapping[str, int | None]
    weights: Mapping[str, float]
    seed: int
    rules: Rules = field(default_factory=Rules)
    lengths: PromptLengths | None = None


def prepare(told: Preparation, folder: Path, note: Note) -> tuple[Tally, Splitting]:
    """Read all problems and write each split to its Parquet file in `folder`.

    Raises:
        DataFileError: see `data.prepare.problems.read_problems`.
        PromptTooLongError: a prompt leaves no room for an answer, and such prompts are to be refused.
    """
    tally = Tally()
    turns = read_few_shot(told.few_shot) if told.few_shot else []
    problems = _read(told, tally)
    if (lengths := told.lengths) is not None:
        fitted = (lengths.fit(problem, lambda p: _prompted(told, turns, p), tally) for problem in problems)
        problems = (problem for problem in fitted if problem is not None)

    def finish(problem: Problem) -> Problem:
        finished = _prompted(told, turns, problem)
        if lengths is not None:
            lengths.check(finished)
        return finished

    further = (problem for one in told.further for problem in read_prompts(one, None, note))
    found = write_splits(problems, further, folder, told.rules, told.limits, told.weights, told.seed, finish)
    close_math_worker()  # references may have been checked there
    return tally, found


def read_held_out(told: Preparation, note: Note) -> Iterator[Problem]:
    """The prompts of all data sets that training must not repeat, in any format."""
    for split, one in told.apart.items():
        yield from read_prompts(one, split, note)
    for one in told.further:
        yield from read_prompts(one, None, note)


def read_prompts(one: ProblemSet, split: Split | None, note: Note) -> Iterator[Problem]:
    """The prompts of a data set, in any format."""
    tally = Tally()
    yield from read_problems(one.reading, split, None, tally, first_use(one.reading), one.name)
    note(one.reading.source, tally)


def _prompted(told: Preparation, turns: Sequence[Message], problem: Problem) -> Problem:
    prefixed = with_prefix(problem, list(turns))
    return with_system(prefixed, told.system) if told.system else prefixed


def _read(told: Preparation, tally: Tally) -> Iterator[Problem]:
    apart = [split for split in SPLITS if split in told.apart]
    for one in told.given:
        for problem in read_problems(one.reading, None, one.can_grade, tally, one.use, one.name, apart):
            if told.weights:
                problem = replace(problem, source=one.name)  # the key of its weight
            # A validation or test file replaces the tenth that would be split off.
            yield replace(problem, split="train") if problem.split in told.apart else problem
    for split in apart:
        one = told.apart[split]
        yield from read_problems(one.reading, split, one.can_grade, tally, one.use, one.name)
    if told.embedded:
        generated = arithmetic.worked_problems if told.worked else arithmetic.embedded_problems
        for problem in generated(told.seed):
            if problem.split in told.embedded:
                tally.rows += 1
                yield replace(problem, split=told.embedded[problem.split])
