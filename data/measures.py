"""Measures of policies on held-out rows: how each is computed, which direction is better, and what it may decide.

A measure gives every row a value and a weight; for a set it is the ratio of their sums. For a share all weights are 1;
for a loss per token, the value is an answer's loss and the weight its number of tokens. Policies are compared row by
row, and intervals are by prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data.metrics import CONFIDENCE, RESAMPLES, Interval, bootstrap_interval
from data.rows import MeasuredRow

MeasureName = Literal["accuracy", "sampled_accuracy", "loss", "pair_accuracy", "win_rate"]


@dataclass(frozen=True)
class Measure:
    """What is measured.

    Attributes:
        label: its name for people.
        rows: what it is measured on, in the plural.
        higher_is_better: the direction.
        unit: how values are shown: as a percentage, in nats, or as the reward gives them.
        even: the value that means no difference; None if it is only compared between two policies.
        across_runs: whether values of two runs on the same rows can be compared.
        moves: whether each iteration has rows of its own, so that two iterations cannot be compared.
    """

    name: str
    label: str
    rows: str
    higher_is_better: bool = True
    unit: Literal["percent", "nats", "reward"] = "percent"
    even: float | None = None
    across_runs: bool = True
    moves: bool = False

    def improves(self, difference: float) -> bool:
        """Whether a difference, later minus earlier, is an improvement."""
        return difference > 0 if self.higher_is_better else difference < 0

    def clearly_better(self, difference: Interval) -> bool:
        """Whether the entire interval of a difference is an improvement."""
        return difference.low > 0 if self.higher_is_better else difference.high < 0

    def shown(self, value: float) -> str:
        return f"{value:.1%}" if self.unit == "percent" else f"{value:.3f}"

    def shown_interval(self, interval: Interval) -> str:
        return f"{self.shown(interval.value)} [{self.shown(interval.low)}, {self.shown(interval.high)}]"


ACCURACY = Measure("accuracy", "greedy pass@1", "problems")
SAMPLED_ACCURACY = Measure("sampled_accuracy", "sampled pass@1", "problems")
LOSS = Measure("loss", "loss per token", "gold answers", higher_is_better=False, unit="nats")
PAIR_ACCURACY = Measure("pair_accuracy", "pair accuracy", "pairs", even=0.5, across_runs=False)
WIN_RATE = Measure("win_rate", "win rate", "prompts", even=0.5)
# How often the policy tells gold answers from its opponent's. The opponent moves, so it falls as SPIN succeeds: no
# loop chooses by it, and it is not a MeasureName.
DISCRIMINATOR = Measure(
    "discriminator_accuracy", "discriminator accuracy", "pairs", even=0.5, across_runs=False, moves=True
)
# How often the policy prefers, more than the one before did, which of that one's answers was judged better.
OWN_PAIRS = Measure("own_pair_accuracy", "accuracy on its own pairs", "pairs", even=0.5, across_runs=False, moves=True)
# How much more than the one before it prefers that, as a difference of log-ratios: what DPO widens.
OWN_MARGIN = Measure(
    "own_pair_margin", "margin on its own pairs", "pairs", unit="nats", even=0.0, across_runs=False, moves=True
)
# How often a verifier, where there is one, orders those pairs as the judge did.
OWN_PAIRS_RIGHT = Measure(
    "own_pairs_right", "its own pairs that the verifier orders alike", "pairs", even=0.5, across_runs=False, moves=True
)
# The reward model that is optimized, which a policy can learn to cheat: no loop chooses by it either.
PROXY = Measure("proxy", "proxy reward", "problems", unit="reward", across_runs=False)
# How often the judge, if it is the policy itself, orders pairs as people did.
AGREEMENT = Measure("judge_agreement", "the judge's agreement with people", "pairs", even=0.5)
LEFT_OUT = "left_out_of_the_difference"  # a detail of a win rate: prompts judged for only one policy
MEASURES = {
    measure.name: measure
    for measure in (
        ACCURACY,
        SAMPLED_ACCURACY,
        LOSS,
        PAIR_ACCURACY,
        WIN_RATE,
        DISCRIMINATOR,
        OWN_PAIRS,
        OWN_MARGIN,
        OWN_PAIRS_RIGHT,
        PROXY,
        AGREEMENT,
    )
}


class Estimated(BaseModel):
    """A measure of one policy on one set of rows."""

    model_config = ConfigDict(frozen=True)
    value: Interval
    rows: int
    against: dict[str, Interval] = Field(
        default_factory=dict, description="This policy minus another, row by row; keys are the other's name."
    )
    details: dict[str, float] = Field(default_factory=dict, description="Further metrics of the same rows.")


def estimate(rows: Sequence[MeasuredRow], seed: int) -> Interval:
    """The ratio of summed values and summed weights, with a 95 % percentile bootstrap interval over prompts.

    Raises:
        ValueError: no rows.
    """
    return _by_prompt([(row.problem_id, row.value, row.weight) for row in rows], seed)


def difference(ours: Iterable[MeasuredRow], theirs: Iterable[MeasuredRow], seed: int) -> Interval:
    """One policy's measure minus another's on the same rows, with a paired bootstrap interval.

    Raises:
        ValueError: the two were not measured on the same rows, or the rows weigh differently.
    """
    ours, others = list(ours), {(row.problem_id, row.index): row for row in theirs}
    pairs = [(row, others.get((row.problem_id, row.index))) for row in ours]
    if len(pairs) != len(others) or not all(other is not None and row.weight == other.weight for row, other in pairs):
        raise ValueError("A paired comparison needs both policies' values of the same rows.")
    return _by_prompt(
        [(row.problem_id, row.value - other.value, row.weight) for row, other in pairs if other is not None], seed
    )


def _by_prompt(rows: Iterable[tuple[str, float, float]], seed: int) -> Interval:
    """Rows of one prompt are correlated, so they are resampled together; otherwise the interval would be too narrow."""
    values, weights = dict[str, float](), dict[str, float]()
    for prompt, value, weight in rows:
        values[prompt] = values.get(prompt, 0.0) + value
        weights[prompt] = weights.get(prompt, 0.0) + weight
    return ratio_interval(list(values.values()), list(weights.values()), seed)


def shared(ours: Sequence[MeasuredRow], theirs: Sequence[MeasuredRow]) -> tuple[list[MeasuredRow], list[MeasuredRow]]:
    """The rows that both policies have: an unreadable judge reply removes a prompt for one of them."""
    both = {(row.problem_id, row.index) for row in ours} & {(row.problem_id, row.index) for row in theirs}
    one, two = ([row for row in rows if (row.problem_id, row.index) in both] for rows in (ours, theirs))
    return one, two


def ratio_interval(values: Sequence[float], weights: Sequence[float], seed: int) -> Interval:
    """Σ values / Σ weights, with a 95 % percentile bootstrap interval over positions (10,000 resamples).

    Raises:
        ValueError: no rows, or weights that sum to zero.
    """
    from scipy.stats import bootstrap

    top, bottom = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    if np.all(bottom == 1):
        return bootstrap_interval(values, seed)
    if not bottom.sum() > 0:
        raise ValueError("A bootstrap interval needs at least one row with a weight.")
    ratio = float(top.sum() / bottom.sum())
    if len(top) == 1 or np.all(top == ratio * bottom):
        return Interval(value=ratio, low=ratio, high=ratio)
    found = bootstrap(
        (top, bottom),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        batch=500,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = found.confidence_interval
    return Interval(value=ratio, low=float(low), high=float(high))
