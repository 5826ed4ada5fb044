"""Which iterations' checkpoints a loop keeps: the setting `keep`, and the rule behind it."""

import re
from collections.abc import Mapping, Sequence

KEEP_PATTERN = r"^(all|best|last[ -]?[1-9][0-9]{0,5})$"


def kept_iterations(keep: str, iterations: Sequence[int], best: int, held: Mapping[int, str]) -> dict[int, str]:
    """The iterations whose checkpoints stay, each with why. All others may be freed.

    Args:
        keep: all; best: the best one alone; last N: the last N, and the best one.
        iterations: those that have a checkpoint, in order.
        best: the best one so far.
        held: iterations that something still needs whatever `keep` says, with what.
    """
    last = iterations[-last_of(keep) :] if last_of(keep) else []
    rules = (
        {number: "keep: all" for number in iterations if keep == "all"},
        {number: f"one of the last {len(last)}" for number in last},
        {number: why for number, why in held.items() if number in iterations},
        {best: "the best one"} if best in iterations else {},
    )
    found: dict[int, str] = {}
    for rule in rules:
        found |= rule
    return dict(sorted(found.items()))


def earlier_kept(keep: str) -> int | None:
    """How many earlier checkpoints stay at most while the next is made; None: all of them.

    The best one always stays, and so does the latest, which the next iteration begins with.
    """
    return None if keep == "all" else 1 + max(1, last_of(keep))


def last_of(keep: str) -> int:
    """N of `last N`; 0 for the other values."""
    found = re.search(r"\d+", keep)
    return int(found[0]) if found else 0
