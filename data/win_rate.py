"""How often a judge prefers one policy's answers to another's: raw, and as if all answers were of the same length.

Judges have a length bias. The length-controlled rate is that of length-controlled AlpacaEval (arXiv 2404.04475): a
fractional logistic regression of the preference on an intercept and tanh(Δ/σ), where Δ is how much longer our answer
is and σ the standard deviation of the Δ, read at Δ = 0. Lengths are in characters, as there: they are the same under
any tokenizer, and gold answers have no tokens.

A logistic regression can be read at Δ = 0 only if the data lie about it. Where all our answers are longer, or the
judge's preference follows from which answer is longer, any rate there is as likely as any other, however many prompts
there are: none is told, or an interval from 0 to 1. Resamples in which it is so widen the interval in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.metrics import CONFIDENCE, RESAMPLES, Interval, bootstrap_interval

# A normal prior of standard deviation 10 on both coefficients, in logits. It moves no rate that can be told, and keeps
# the coefficients finite where a judge always prefers the longer answer, or where all preferences of a resample agree.
RIDGE = 0.01
UNTOLD = -1.0  # stands for the rate of a resample that tells none
MOST_STEPS, TOLERANCE = 100, 1e-6  # logits; after so short a step of Newton's, what is left is its square


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our answer to one prompt beside theirs.

    Attributes:
        preference: of the judge for ours, 0 to 1.
        ours, theirs: lengths in characters.
    """

    problem_id: str
    preference: float
    ours: int
    theirs: int


@dataclass(frozen=True)
class WinRate:
    """Rates with their 95 % percentile bootstrap intervals over prompts."""

    raw: Interval
    length_controlled: Interval | None


def win_rate(comparisons: Sequence[Comparison], seed: int) -> WinRate:
    """The mean preference, and what it would be for answers of the same length.

    The same comparisons with the two sides swapped give the mirrored rates and intervals.

    Raises:
        ValueError: no comparisons.
    """
    preferences = [one.preference for one in comparisons]
    longer_by = [one.ours - one.theirs for one in comparisons]
    return WinRate(bootstrap_interval(preferences, seed), length_controlled(preferences, longer_by, seed))


def length_controlled(preferences: Sequence[float], longer_by: Sequence[float], seed: int) -> Interval | None:
    """The win rate read at a length difference of 0; the regression is fitted anew in each of 10,000 resamples.

    σ is that of all prompts in every resample. Where no length differs it is the raw rate.

    Args:
        preferences: 0 to 1, by prompt.
        longer_by: length of our answer minus that of theirs, by prompt.

    Returns:
        None where all answers of one side are the longer ones.

    Raises:
        ValueError: no prompts.
    """
    from scipy.stats import bootstrap

    y, difference = np.asarray(preferences, dtype=float), np.asarray(longer_by, dtype=float)
    if not np.any(difference):
        return bootstrap_interval(preferences, seed)
    if np.all(difference > 0) or np.all(difference < 0):
        return None
    x = np.tanh(difference / difference.std())
    start = fit_logistic(y, x)
    found = bootstrap(
        (y, x),
        lambda a, b, axis: np.where(_tells_nothing(a, b), UNTOLD, _sigmoid(fit_logistic(a, b, start)[0])),
        paired=True,
        n_resamples=RESAMPLES,
        batch=50,  # what stays in a processor's cache
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    rates, tail = found.bootstrap_distribution, 50 * (1 - CONFIDENCE)
    low = np.percentile(np.where(rates == UNTOLD, 0, rates), tail)
    high = np.percentile(np.where(rates == UNTOLD, 1, rates), 100 - tail)
    value = 0.5 if _tells_nothing(y, x) else float(_sigmoid(start[0]))
    return Interval(value=value, low=float(low), high=float(high))


def _tells_nothing(y: Any, x: Any) -> Any:
    """Whether the fit leaves open on which side of a half the rate at x = 0 is, along the last axis.

    That is where all x have one sign, or where lines a + b·x that are never negative at y = 1, never positive at y = 0
    and zero at all other y exist both with a > 0 and with a < 0: the likelihood has no maximum and grows along each.
    """
    one_sided = np.all(x > 0, axis=-1) | np.all(x < 0, axis=-1)
    # A rising one crosses zero from `highest_lost` to `lowest_won`, a falling one from `highest_won` to `lowest_lost`.
    lowest_won, highest_lost = np.where(y > 0, x, np.inf).min(-1), np.where(y < 1, x, -np.inf).max(-1)
    lowest_lost, highest_won = np.where(y < 1, x, np.inf).min(-1), np.where(y > 0, x, -np.inf).max(-1)
    rising, falling = highest_lost <= lowest_won, highest_won <= lowest_lost
    positive = (rising & (highest_lost < 0)) | (falling & (lowest_lost > 0))
    negative = (rising & (lowest_won > 0)) | (falling & (highest_won < 0))
    return one_sided | (positive & negative)


def fit_logistic(y: Any, x: Any, start: Any = (0.0, 0.0)) -> tuple[Any, Any]:
    """Fractional logistic regression y ≈ σ(a + b·x), with `RIDGE`, along the last axis.

    Newton's method with steps shortened as for generalized self-concordant functions (arXiv 1703.04599, equation 26
    with ν = 2), so that it converges from any start.

    Args:
        y: shares from 0 to 1, shape (…, n).
        x: from −1 to 1, of the same shape.
        start: where to begin, for all alike.

    Returns:
        The intercepts a and the slopes b, each of shape (…).
    """
    a, b = (np.full(y.shape[:-1], float(value)) for value in start)
    for _ in range(MOST_STEPS):
        p = _sigmoid(a[..., None] + b[..., None] * x)
        residual, weight = y - p, p * (1 - p)
        pull_a, pull_b = residual.sum(-1) - RIDGE * a, (residual * x).sum(-1) - RIDGE * b
        aa, ab, bb = weight.sum(-1) + RIDGE, (weight * x).sum(-1), (weight * x * x).sum(-1) + RIDGE
        scale = aa * bb - ab * ab
        step_a, step_b = (bb * pull_a - ab * pull_b) / scale, (aa * pull_b - ab * pull_a) / scale
        far = np.sqrt(2) * np.hypot(step_a, step_b)  # no row (1, x) is longer than the root of 2
        short = np.where(far > 0, np.log1p(far) / np.where(far > 0, far, 1), 1)
        a, b = a + short * step_a, b + short * step_b
        if np.max(far) < TOLERANCE:
            break
    return a, b


def _sigmoid(z: Any) -> Any:
    from scipy.special import expit

    return expit(z)
