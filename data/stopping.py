"""When a loop ends, and which iteration was best, based on validation results alone."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

from data.measures import ACCURACY, DISCRIMINATOR, Measure
from data.metrics import Interval
from data.wording import counted

StopRule = Literal["paper", "patience", "discriminator", "overoptimized", "none"]


def best_iteration(values: Sequence[float], measure: Measure = ACCURACY) -> int:
    """The best iteration by a measure, counting the base as 0; the earliest if several are equal."""
    sign = 1 if measure.higher_is_better else -1
    return max(range(len(values)), key=lambda i: (sign * values[i], -i))


def from_the_base(values: Sequence[float | None], measure: Measure) -> list[float]:
    """The values of the base and the iterations after it, up to the first without a measurement.

    If the measure only compares two policies, the base has no value: the others are measured against it.
    """
    found = list(values)
    if len(found) > 1 and found[0] is None and found[1] is not None:
        found[0] = measure.even
    return [value for value in takewhile(lambda value: value is not None, found) if value is not None]


def stop_reason(rule: StopRule, patience: int, values: Sequence[float], measure: Measure = ACCURACY) -> str | None:
    """Why the loop ends after the latest iteration, or None to continue.

    `paper` (arXiv 2312.06585, algorithm 1) ends once validation no longer improves on the iteration before;
    `patience` ends after that many iterations without a new best; the other rules do not look at a measure.

    Args:
        values: the values of the base and each iteration so far on validation.
        measure: the measure of these values.
    """
    latest = len(values) - 1
    if rule not in ("paper", "patience") or latest < 1:
        return None
    if rule == "paper":
        if measure.improves(values[-1] - values[-2]):
            return None
        change = f"{measure.shown(values[-2])} → {measure.shown(values[-1])}"
        return f"validation did not improve in iteration {latest} ({change})"
    since = latest - best_iteration(values, measure)
    iterations = counted(since, "iteration")
    return f"no new best on validation for {iterations}" if since >= patience else None


def all_done(iterations: int) -> str:
    """The reason for the end of a loop that was not stopped early."""
    return "its only iteration is done" if iterations == 1 else f"all {iterations} iterations are done"


def overoptimized(iteration: int, best: int, proxy: Interval, gold: Interval, measure: Measure) -> str | None:
    """Why a loop ends that only gains in the reward that it optimizes; None to continue (arXiv 2210.10760).

    Args:
        best: the iteration with the best gold measure so far.
        proxy, gold: the latest iteration minus that one, row by row.
        measure: gold's.
    """
    if not gold.high < 0 < proxy.low:
        return None
    lost = f"{100 * -gold.value:.1f} points" if measure.unit == "percent" else f"{-gold.value:.3f}"
    return (
        f"the reward that is optimized still rose in iteration {iteration}, by {proxy.value:.3f} since iteration "
        f"{best}, but {measure.label} fell by {lost}"
    )


def game_is_over(iteration: int, discriminated: Interval | None) -> str | None:
    """Why SPIN ends after an iteration whose policy no longer recognizes gold answers; None to continue.

    Args:
        discriminated: share of held-out pairs whose gold answer it ranks above the opponent's (arXiv 2401.01335,
            section 4.1: the game has ended when the two are indistinguishable). None: no pair is left.
    """
    if discriminated is None:
        return f"no held-out answer of the opponent is left to compare with a gold one in iteration {iteration}"
    if discriminated.low <= 0.5 <= discriminated.high:
        shown = DISCRIMINATOR.shown_interval(discriminated)
        return f"gold answers can no longer be distinguished from the opponent's in iteration {iteration} ({shown})"
    return None
