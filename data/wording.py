"""How counts and durations are worded, wherever they are shown."""

from collections.abc import Mapping


def counted(number: float, noun: str, plural: str = "") -> str:
    """A count with its noun: `1 row`, `2,000 rows`; `plural` if that is not the noun with an s."""
    shown = f"{int(number):,}" if number == int(number) else f"{number:,}"
    return f"{shown} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def and_left_out(dropped: Mapping[str, int]) -> str:
    """What follows the count of kept rows to describe those left out; empty if there were none."""
    reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count)
    return f"; left out: {reasons}" if reasons else ""
