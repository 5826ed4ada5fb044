"""How measured numbers are worded for people: shares in percent, differences in points, losses in nats, and caution.

What all pages, tables and sentences of a run share. It measures nothing.
"""

import re
from typing import Literal

from data.measures import LEFT_OUT, Measure
from data.metrics import CONFIDENCE, Interval

LEVEL = f"{100 * CONFIDENCE:g} %"
FEWEST_ROWS = 30  # below, a percentile bootstrap holds the truth clearly less often than it claims
WIDEST = 0.5  # of the scale of a share
DETAILS = {  # what the further figures of a measure are called; DPO's rewards keep the names that TRL gives them
    "loss": "loss",
    "mean_tokens": "opponent's answer length, tokens",
    "gold_tokens": "gold answer length, tokens",
    "length_ratio": "opponent's length over gold length",
    "repeated": "opponent's share of repeated 4-grams",
    "ended": "share of the opponent's answers that ends by itself",
    "win_rate": "win rate",
    "win_rate_low": "win rate, lower end of the interval",
    "win_rate_high": "win rate, upper end of the interval",
    "length_controlled": "win rate at equal length",
    "length_controlled_low": "win rate at equal length, lower end of the interval",
    "length_controlled_high": "win rate at equal length, upper end of the interval",
    "length_ours": "mean length of the policy's answers, characters",
    "length_theirs": "mean length of the other answers, characters",
    "longer_ours": "prompts to which the policy's answer is longer",
    "longer_theirs": "prompts to which the other answer is longer",
    "truncated_ours": "the policy's answers cut off at the token limit",
    "truncated_theirs": "other answers cut off at the token limit",
    "same": "prompts to which both answers read the same: a tie",
    "unread": "prompts left out, since no reply of the judge could be read",
    "parse_rate": "share of the judge's replies that could be read",
    "flip_rate": "share of prompts at which the judge's choice changes with the order",
    LEFT_OUT: "prompts left out of the difference, judged for one policy only",
}
Direction = Literal["higher", "lower", "no clear difference", "not compared"]


def direction(difference: Interval) -> Direction:
    if not difference.excludes_zero:
        return "no clear difference"
    return "higher" if difference.value > 0 else "lower"


def above(measure: Measure, value: Interval) -> Direction:
    """On which side of the value that says that nothing is different a whole interval lies."""
    even = measure.even or 0.0
    return direction(Interval(value=value.value - even, low=value.low - even, high=value.high - even))


def too_small(measure: Measure, rows: int, interval: Interval) -> str:
    """A sentence where a held-out set is so small that the interval says nothing, else nothing.

    That is with fewer than 30 rows, or where the interval of a share, or of a difference of shares, is wider than 50
    points: half of the whole scale.
    """
    if rows < FEWEST_ROWS:
        return f"n = {rows:,} is too few: an interval from fewer than {FEWEST_ROWS} rows says nothing reliable."
    if measure.unit == "percent" and interval.high - interval.low > WIDEST:
        return f"n = {rows:,} is too few: the interval spans more than half of the scale and says next to nothing."
    return ""


def shown(measure: Measure, value: float) -> str:
    """A value, which for a loss has its unit elsewhere."""
    return percent(value) if measure.unit == "percent" else minus(f"{value:z.3f}")


def shown_range(measure: Measure, interval: Interval) -> str:
    """The two ends of an interval, in percent or points, or in nats."""
    if measure.unit == "percent":
        return value_range(interval)
    return minus(f"[{interval.low:z.3f}, {interval.high:z.3f}]")


def shown_difference(measure: Measure, value: float) -> str:
    return f"{points(value)} points" if measure.unit == "percent" else minus(f"{value:+z.3f}")


def detail_label(name: str) -> str:
    """What a further figure of a measure is called; against an opponent that does not decide, with its name."""
    rival, _, rest = name.partition("_")
    if name not in DETAILS and rest in DETAILS:
        return f"against {rival}: {DETAILS[rest]}"
    return DETAILS.get(name, name.replace("_", " "))


def percent(share: float) -> str:
    return f"{100 * share:z.1f} %"


def points(share: float) -> str:
    return minus(f"{100 * share:+z.1f}")


def value_range(interval: Interval) -> str:
    """The two ends of an interval, in percent or in percentage points."""
    return minus(f"[{100 * interval.low:z.1f}, {100 * interval.high:z.1f}]")


def minus(number: str) -> str:
    return number.replace("-", "−")


def unbroken(text: str) -> str:
    """The text with no-break spaces where a line should not end: between number and unit, and within "n = 5"."""
    text = text.replace("top-p", "top\u2011p")
    return re.sub(r"(?<=\d) (?=%|points|nats)|(?<=,) (?=[−\d.]+\])|(?<=\b[nk]) (?==)|(?<==) (?=\d)", "\u00a0", text)
