"""When a loop ends, from the validation accuracies of its iterations alone."""

from collections.abc import Sequence
from typing import Literal

StopRule = Literal["paper", "patience", "none"]


def best_iteration(accuracies: Sequence[float]) -> int:
    """The iteration of the highest accuracy, counting the base as 0; the earliest where several are equal."""
    return max(range(len(accuracies)), key=lambda i: (accuracies[i], -i))


def stop_reason(rule: StopRule, patience: int, accuracies: Sequence[float]) -> str | None:
    """Why the loop ends after the latest iteration, or None to go on.

    `paper` (arXiv 2312.06585, algorithm 1) ends once validation no longer improves on the iteration before;
    `patience` ends after that many iterations without a new best; `none` never ends early.

    Args:
        accuracies: validation accuracy of the base and of each iteration so far.
    """
    latest = len(accuracies) - 1
    if rule == "none" or latest < 1:
        return None
    if rule == "paper":
        if accuracies[-1] > accuracies[-2]:
            return None
        return f"validation did not improve in iteration {latest} ({accuracies[-2]:.1%} → {accuracies[-1]:.1%})"
    since = latest - best_iteration(accuracies)
    iterations = f"{since} iteration{'s' * (since > 1)}"
    return f"no new best on validation for {iterations}" if since >= patience else None
