"""Which iterations' checkpoints a loop keeps: the setting `keep` and its rule."""

import re
from collections.abc import Mapping, Sequence

KEEP_PATTERN = r"^(all|best|last[ -]?[1-9][0-9]{0,5})$"


def kept_iterations(keep: str, iterations: Sequence[int], best: int, held: Mapping[int, str]) -> dict[int, str]:
    """Return the iterations whose checkpoints stay, with the reason. All others may be freed.

    Args:
        keep: all; best: only the best; last N: the last N and the best.
        iterations: those with a checkpoint, in order.
        best: the best iteration so far.
        held: iterations that are needed regardless of `keep`, with what needs them.
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
    """Most earlier checkpoints that stay while the next one is made; None: all of them.

    The best one always stays, and so does the latest, from which the next iteration may start.
    """
    return None if keep == "all" else 1 + max(1, last_of(keep))


def last_of(keep: str) -> int:
    """N of `last N`; 0 for the other values."""
    found = re.search(r"\d+", keep)
    return int(found[0]) if found else 0
