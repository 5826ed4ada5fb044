"""pass@k, maj@k, bootstrap intervals, and the record of one evaluation. Pure functions of per-problem outcomes."""

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

RESAMPLES = 10_000
CONFIDENCE = 0.95


class Interval(BaseModel):
    """A mean over problems with its bootstrap confidence interval."""

    model_config = ConfigDict(frozen=True)
    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}]"


class Outcome(BaseModel):
    """The outcome of one problem. `correct` of `samples` sampled answers were right."""

    model_config = ConfigDict(frozen=True)
    problem_id: str
    greedy_correct: bool
    greedy_verdict: str
    greedy_text: str
    samples: int
    correct: int
    majority_correct: float


class SetMetrics(BaseModel):
    """One policy on one set of problems. Shares are fractions of 1; lengths are in tokens."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)
    problems: int
    greedy: Interval = Field(alias="pass@1 greedy", description="Share of problems whose greedy answer is correct.")
    pass_at: dict[int, Interval] = Field(alias="pass@k", description="Unbiased pass@k from the sampled answers.")
    majority_at: dict[int, Interval] = Field(alias="maj@k", description="Majority vote of all n sampled answers.")
    samples_per_problem: int
    temperature: float
    top_p: float
    verdicts: dict[str, int] = Field(description="Verdicts of the greedy answers.")
    truncated: float = Field(description="Share of all answers cut off at the token limit.")
    mean_tokens: float = Field(description="Mean length of all answers.")
    against: dict[str, Interval] = Field(
        default_factory=dict,
        description="Greedy pass@1 minus another policy's on the same problems, paired bootstrap interval.",
    )


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k samples is correct, from n samples.

    1 − C(n−c, k) / C(n, k), Chen et al. 2021 (arXiv 2107.03374), equation 1.

    Raises:
        ValueError: k is not in 1…n, or correct not in 0…n.
    """
    if not (1 <= k <= n and 0 <= correct <= n):
        raise ValueError(f"pass@{k} needs 1 ≤ k ≤ n and 0 ≤ correct ≤ n, got n={n}, correct={correct}.")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def majority_correct(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the most common answer among `votes` of (answer, correct) is correct.

    Unparsable answers (None) do not vote. Among tied answers one is drawn at random, so a tie counts the share of tied
    answers that are correct. With no votes the result is 0.
    """
    counts = Counter(answer for answer, _ in votes if answer is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    right = {answer for answer, correct in votes if correct}
    return sum(answer in right for answer in winners) / len(winners)


def bootstrap_interval(values: Sequence[float], seed: int) -> Interval:
    """Mean of per-problem values with a 95 % percentile bootstrap interval over problems (10,000 resamples).

    Raises:
        ValueError: no values.
    """
    from scipy.stats import bootstrap

    if len(values) == 0:
        raise ValueError("A bootstrap interval needs at least one problem.")
    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    if np.all(data == data[0]):
        return Interval(value=mean, low=mean, high=mean)
    result = bootstrap(
        (data,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=500,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(value=mean, low=float(result.confidence_interval.low), high=float(result.confidence_interval.high))


def paired_difference(ours: Sequence[Outcome], theirs: Sequence[Outcome], seed: int) -> Interval:
    """Greedy pass@1 of one policy minus another's on the same problems, with a paired bootstrap interval.

    Raises:
        ValueError: the two were not measured on the same problems.
    """
    other = {outcome.problem_id: outcome.greedy_correct for outcome in theirs}
    if other.keys() != {outcome.problem_id for outcome in ours} or len(ours) != len(theirs):
        raise ValueError("A paired comparison needs both policies' outcomes on the same problems.")
    return bootstrap_interval([float(o.greedy_correct) - float(other[o.problem_id]) for o in ours], seed)
