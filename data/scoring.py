"""Scoring: apply any reward to every sample, in order, in constant memory."""

import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import get_args

from data.combining import TRUNCATED, Combination, combine
from data.errors import RunFailedError
from data.rows import BY_THE_ANSWER, UNGRADED, Problem, Sample, Score, Verdict
from data.text import storable

LONGEST_TEXT = 10_000  # characters of a reward's texts for one sample

Reward = Callable[[Problem, str], Score]


class TooManyErrorsError(RunFailedError):
    """The reward failed on more samples than is acceptable."""


@dataclass
class Tally:
    """Counts of one scoring pass, complete once its rows have been consumed."""

    verdicts: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    tokens: int = 0
    errors: int = 0
    first_traceback: str = ""

    @property
    def samples(self) -> int:
        return self.verdicts.total()

    def count(self, sample: Sample, score: Score) -> None:
        self.verdicts[score.verdict] += 1
        self.truncated += sample.truncated
        self.tokens += len(sample.token_ids)
        if score.verdict == "error" and not score.explanation.startswith(BY_THE_ANSWER):
            self.errors += 1
            self.first_traceback = self.first_traceback or score.explanation

    def add(self, other: "Tally") -> None:
        """Add the counts of another pass."""
        self.verdicts.update(other.verdicts)
        self.truncated += other.truncated
        self.tokens += other.tokens
        self.errors += other.errors
        self.first_traceback = self.first_traceback or other.first_traceback


def score_samples(
    problems: Iterable[Problem], samples: Iterable[Sample], reward: Reward, grader: str, tally: Tally
) -> Iterator[Score]:
    """Score samples that follow the order of their problems.

    A truncated sample counts as wrong without being graded. A reward that raises gives the verdict `error`, which says
    nothing about the sample; the first traceback is kept.

    Raises:
        ValueError: a sample has no matching problem, or is out of order.
    """
    for problem, sample in pair_up(problems, samples):
        score = _score(problem, sample, reward, tally)
        tally.count(sample, score)
        yield replace(score, problem_id=sample.problem_id, index=sample.index, grader=grader)


def combine_scores(
    samples: Iterable[Sample], parts: Mapping[str, Iterable[Score]], combination: Combination, grader: str, tally: Tally
) -> Iterator[Score]:
    """Combine the scores that several rewards gave the same samples. A truncated sample is wrong and worth 0.

    Args:
        parts: by name, a score for each sample, in the same order.

    Raises:
        ValueError: the scores belong to other samples, or there are too few.
    """
    for sample, *scores in zip(samples, *parts.values(), strict=True):
        key = (sample.problem_id, sample.index)
        if any((score.problem_id, score.index) != key for score in scores):
            raise ValueError(f"Sample {sample.index} of problem {sample.problem_id} got the score of another one.")
        if sample.truncated:
            score = Score(0.0, "wrong", TRUNCATED)
        else:
            score = combine(dict(zip(parts, scores, strict=True)), len(sample.token_ids), combination)
        tally.count(sample, score)
        yield replace(score, problem_id=sample.problem_id, index=sample.index, grader=grader)


def check_errors(tally: Tally, max_error_share: float, kept: str = "the samples are kept") -> None:
    """Refuse a scoring pass in which the reward failed too often.

    Args:
        kept: what is not lost by that, for the message.

    Raises:
        TooManyErrorsError: includes the first traceback.
    """
    if tally.samples and tally.errors / tally.samples > max_error_share:
        raise TooManyErrorsError(
            f"The reward failed on {tally.errors:,} of {tally.samples:,} samples ({tally.errors / tally.samples:.1%}; "
            f"reward.max_error_share allows {max_error_share:.1%}).",
            f"The first failure:\n{tally.first_traceback}\n",
            f"Fix the reward and run the same command again: {kept}.",
        )


def pair_up(problems: Iterable[Problem], samples: Iterable[Sample]) -> Iterator[tuple[Problem, Sample]]:
    """Each sample with its problem, both streamed in the same order.

    Raises:
        ValueError: a sample's problem is not among those that remain.
    """
    remaining = iter(problems)
    problem = next(remaining, None)
    for sample in samples:
        while problem is not None and problem.id != sample.problem_id:
            problem = next(remaining, None)
        if problem is None:
            raise ValueError(f"Sample {sample.index} of problem {sample.problem_id} has no matching problem.")
        yield problem, sample


def check_score(score: Score) -> None:
    """Reject an invalid result of a reward.

    Raises:
        TypeError, ValueError: not a Score, an unknown verdict, or a value that does not fit the verdict.
    """
    if not isinstance(score, Score):
        raise TypeError(f"The reward returned {score!r}; it must return a data.rows.Score.")
    if score.verdict not in get_args(Verdict):
        raise ValueError(f"The reward gave the verdict {score.verdict!r}; it must be one of {get_args(Verdict)}.")
    if score.value is None:
        if score.verdict not in UNGRADED:
            raise ValueError(f"The reward gave no value with the verdict {score.verdict!r}; only {UNGRADED} have none.")
    elif isinstance(score.value, bool) or not isinstance(score.value, int | float) or not math.isfinite(score.value):
        raise ValueError(f"The reward gave the value {score.value!r}; it must be a finite number or None.")
    if not isinstance(score.explanation, str) or not isinstance(score.answer, str | None):
        raise TypeError(f"The reward gave {score.explanation!r} and {score.answer!r} as texts; both must be strings.")


def _score(problem: Problem, sample: Sample, reward: Reward, tally: Tally) -> Score:
    if sample.truncated:
        return Score(0.0, "wrong", TRUNCATED)
    try:
        score = reward(problem, sample.text)
        check_score(score)
    except (Exception, SystemExit) as error:  # a reward that exits has failed
        tally.first_traceback = tally.first_traceback or storable(traceback.format_exc(), LONGEST_TEXT)
        score = Score(None, "error", "".join(traceback.format_exception_only(error)).strip())
    answer = None if score.answer is None else storable(score.answer, LONGEST_TEXT)
    return replace(score, explanation=storable(score.explanation, LONGEST_TEXT), answer=answer)
