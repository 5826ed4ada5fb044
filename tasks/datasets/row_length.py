"""Training rows that are too long: the limit, and the messages about them."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.wording import counted
from models.loading import load_tokenizer, room_of, virtual_tokens
from tasks.datasets.select import NothingKeptError
from tasks.stage.logs import run_logger
from tasks.stage.run import Run


@dataclass(frozen=True)
class Limit:
    """The most tokens a row may have, and what sets the limit."""

    tokens: int
    name: str


def tokenizer_and_limit(policy: Path, run: Run, pack_to: int | None = None) -> tuple[object, Limit]:
    """Return a policy's tokenizer and the row limit: the policy's context, or a packed row if that is shorter.

    Virtual tokens that the run's training puts in front are not in that context.
    """
    code = run.model_code
    context = room_of(policy, code) - max(0, run.virtual_tokens - virtual_tokens(policy))
    limit = Limit(context, "the model's context")
    if pack_to is not None and pack_to < context:
        limit = Limit(pack_to, "a packed row (train.pack_to)")
    # Callers count rows beyond the limit, so the tokenizer's own warning is turned off.
    return load_tokenizer(policy, code, model_max_length=sys.maxsize), limit


def report_too_long(counts: Counter[str], limit: Limit) -> dict[str, int]:
    """Log the number of rows left out, and return it for the stage's manifest."""
    if not counts["too_long"]:
        return {}
    run_logger().warning(
        "%s of %s left out: longer than %s of %s",
        f"{counts['too_long']:,}",
        counted(counts.total(), "row"),
        limit.name,
        counted(limit.tokens, "token"),
    )
    return {"too_long": counts["too_long"]}


def nothing_fits(total: int, limit: Limit) -> NothingKeptError:
    """The error if no row fits the limit."""
    return NothingKeptError(
        f"No row fits {limit.name} of {counted(limit.tokens, 'token')}, so nothing is left to train on "
        f"({counted(total, 'row')} read).",
        what_next="Give shorter rows, or raise that limit.",
    )
