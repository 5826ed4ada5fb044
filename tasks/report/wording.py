"""How measured numbers are worded for people: shares in percent, differences in points, losses in nats, and warnings.

Shared by all pages, tables and sentences of a run. It measures nothing.
"""

import re
from typing import Literal

from data.judging import ENTROPY, FLIPS, TIES, WITH_ITSELF, WITH_LENGTH
from data.measures import LEFT_OUT, Measure
from data.metrics import CONFIDENCE, Interval

LEVEL = f"{100 * CONFIDENCE:g} %"
FEWEST_ROWS = 30  # with fewer, a percentile bootstrap covers the true value clearly less often than it claims
WIDEST = 0.5  # interval width, as a fraction of a share's scale
DETAILS = {  # labels of a measure's details; DPO's rewards keep TRL's names
    "loss": "loss",
    "kl": "KL divergence from the base, nats per answer",
    "mean_tokens": "opponent's answer length, tokens",
    "gold_tokens": "gold answer length, tokens",
    "length_ratio": "opponent's length over gold length",
    "repeated": "opponent's share of repeated 4-grams",
    "ended": "share of the opponent's answers with an end-of-turn token",
    "win_rate": "win rate",
    "win_rate_low": "win rate, lower end of the interval",
    "win_rate_high": "win rate, upper end of the interval",
    "length_controlled": "win rate at equal length",
    "length_controlled_low": "win rate at equal length, lower end of the interval",
    "length_controlled_high": "win rate at equal length, upper end of the interval",
    "length_ours": "mean length of the policy's answers, characters",
    "length_theirs": "mean length of the other answers, characters",
    "longer_ours": "prompts where the policy's answer is longer",
    "longer_theirs": "prompts where the other answer is longer",
    "truncated_ours": "the policy's answers cut off at the token limit",
    "truncated_theirs": "other answers cut off at the token limit",
    "same": "prompts with two identical answers: a tie",
    "unread": "prompts left out because no reply of the judge could be read",
    "parse_rate": "share of the judge's replies that could be read",
    "flip_rate": "share of prompts where the judge's choice changes with the order",
    TIES: "share of the pairs that the judge holds equal",
    ENTROPY: "entropy of the judge's scores, bits",
    WITH_ITSELF: "agreement of the judge's opinions with each other",
    WITH_LENGTH: "correlation of the judge's scores with length",
    FLIPS: "share of the comparisons in which the order decided",
    LEFT_OUT: "prompts left out of the difference, judged for only one policy",
}
Direction = Literal["higher", "lower", "no clear difference", "not compared"]


def direction(difference: Interval) -> Direction:
    if not difference.excludes_zero:
        return "no clear difference"
    return "higher" if difference.value > 0 else "lower"


def above(measure: Measure, value: Interval) -> Direction:
    """Return on which side of the value of no difference the complete interval is."""
    even = measure.even or 0.0
    return direction(Interval(value=value.value - even, low=value.low - even, high=value.high - even))


def too_small(measure: Measure, rows: int, interval: Interval) -> str:
    """Return a warning if a held-out set is too small for its interval to mean anything, otherwise an empty string.

    That is, with fewer than 30 rows, or if the interval of a share, or of a difference of shares, is wider than 50
    points: half of the scale.
    """
    if rows < FEWEST_ROWS:
        return f"n = {rows:,} is too few: an interval from fewer than {FEWEST_ROWS} rows is not reliable."
    if measure.unit == "percent" and interval.high - interval.low > WIDEST:
        return f"n = {rows:,} is too few: the interval spans more than half of the scale and means next to nothing."
    return ""


def shown(measure: Measure, value: float) -> str:
    """Format a value; a loss has its unit elsewhere."""
    return percent(value) if measure.unit == "percent" else minus(f"{value:z.3f}")


def shown_range(measure: Measure, interval: Interval) -> str:
    """Format the two ends of an interval, in percent or points, or in nats."""
    if measure.unit == "percent":
        return value_range(interval)
    return minus(f"[{interval.low:z.3f}, {interval.high:z.3f}]")


def shown_difference(measure: Measure, value: float) -> str:
    return f"{points(value)} points" if measure.unit == "percent" else minus(f"{value:+z.3f}")


def detail_label(name: str) -> str:
    """Return the label of a measure's detail; for an opponent that does not decide, with the opponent's name."""
    rival, _, rest = name.partition("_")
    if name not in DETAILS and rest in DETAILS:
        return f"against {rival}: {DETAILS[rest]}"
    return DETAILS.get(name, name.replace("_", " "))


def percent(share: float) -> str:
    return f"{100 * share:z.1f} %"


def points(share: float) -> str:
    return minus(f"{100 * share:+z.1f}")


def value_range(interval: Interval) -> str:
    """Format the two ends of an interval, in percent or in percentage points."""
    return minus(f"[{100 * interval.low:z.1f}, {100 * interval.high:z.1f}]")


def minus(number: str) -> str:
    return number.replace("-", "−")


def unbroken(text: str) -> str:
    """Put no-break spaces where a line should not break: between number and unit, and within "n = 5"."""
    text = text.replace("top-p", "top\u2011p")
    return re.sub(r"(?<=\d) (?=%|points|nats)|(?<=,) (?=[−\d.]+\])|(?<=\b[nk]) (?==)|(?<==) (?=\d)", "\u00a0", text)
