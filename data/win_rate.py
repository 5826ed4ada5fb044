"""How often a judge prefers one policy's answers to another's: raw, and controlled for length.

Judges have a length bias. The length-controlled rate is that of length-controlled AlpacaEval (arXiv 2404.04475): a
fractional logistic regression of the preference on an intercept and tanh(Δ/σ), where Δ is how much longer our answer is
and σ the standard deviation of the Δ, evaluated at Δ = 0. Lengths are in characters, as there: they do not depend on a
tokenizer, and gold answers have no tokens.

The regression can be evaluated at Δ = 0 only if the data lie on both sides of it. If all our answers are longer, or
preference follows from which answer is longer, any rate there is as likely as any other, however many prompts there
are: no rate is reported, or an interval from 0 to 1. Resamples in which this happens widen the interval the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.metrics import CONFIDENCE, RESAMPLES, Interval, bootstrap_interval

# A normal prior of standard deviation 10 on both coefficients, in logits. It changes no identifiable rate, and keeps
# the coefficients finite if a judge always prefers the longer answer, or if all preferences of a resample agree.
RIDGE = 0.01
UNTOLD = -1.0  # marks a resample whose rate is not identifiable
MOST_STEPS, TOLERANCE = 100, 1e-6  # in logits; after a Newton step this short, the remaining error is about its square


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our answer to one prompt compared with theirs.

    Attributes:
        preference: the judge's for ours, 0 to 1.
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
    """The mean preference, raw and as it would be for answers of the same length.

    The same comparisons with the two sides swapped give the mirrored rates and intervals.

    Raises:
        ValueError: no comparisons.
    """
    preferences = [one.preference for one in comparisons]
    longer_by = [one.ours - one.theirs for one in comparisons]
    return WinRate(bootstrap_interval(preferences, seed), length_controlled(preferences, longer_by, seed))


def length_controlled(preferences: Sequence[float], longer_by: Sequence[float], seed: int) -> Interval | None:
    """The win rate at a length difference of 0; the regression is fitted again in each of 10,000 resamples.

    σ is computed from all prompts and used in every resample. If no length differs it is the raw rate.

    Args:
        preferences: 0 to 1, by prompt.
        longer_by: length of our answer minus that of theirs, by prompt.

    Returns:
        None if all answers of one side are longer.

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
        batch=50,  # small enough for the CPU cache
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
    """Whether the fit does not determine on which side of 0.5 the rate at x = 0 is, along the last axis.

    That is so if all x have one sign, or if lines a + b·x that are never negative at y = 1, never positive at y = 0 and
    zero at all other y exist both with a > 0 and with a < 0: the likelihood has no maximum and grows along each.
    """
    one_sided = np.all(x > 0, axis=-1) | np.all(x < 0, axis=-1)
    # A rising line crosses zero from `highest_lost` to `lowest_won`, a falling one from `highest_won` to `lowest_lost`.
    lowest_won, highest_lost = np.where(y > 0, x, np.inf).min(-1), np.where(y < 1, x, -np.inf).max(-1)
    lowest_lost, highest_won = np.where(y < 1, x, np.inf).min(-1), np.where(y > 0, x, -np.inf).max(-1)
    rising, falling = highest_lost <= lowest_won, highest_won <= lowest_lost
    positive = (rising & (highest_lost < 0)) | (falling & (lowest_lost > 0))
    negative = (rising & (lowest_won > 0)) | (falling & (highest_won < 0))
    return one_sided | (positive & negative)


def fit_logistic(y: Any, x: Any, start: Any = (0.0, 0.0)) -> tuple[Any, Any]:
    """Fractional logistic regression y ≈ σ(a + b·x), with `RIDGE`, along the last axis.

    Newton's method with steps shortened as for generalized self-concordant functions (arXiv 1703.04599, equation 26
    with ν = 2), so it converges from any start.

    Args:
        y: shares from 0 to 1, shape (…, n).
        x: from −1 to 1, of the same shape.
        start: starting point, the same for all.

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
        far = np.sqrt(2) * np.hypot(step_a, step_b)  # no row (1, x) has a norm above the root of 2
        short = np.where(far > 0, np.log1p(far) / np.where(far > 0, far, 1), 1)
        a, b = a + short * step_a, b + short * step_b
        if np.max(far) < TOLERANCE:
            break
    return a, b


def _sigmoid(z: Any) -> Any:
    from scipy.special import expit

    return expit(z)
