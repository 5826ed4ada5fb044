"""Training rows that are too long: for what, how many, and what is said of them."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.render import context_length
from models.config import ModelCode
from models.loading import load_config, load_tokenizer
from tasks.datasets.select import NothingKeptError
from tasks.stage.logs import run_logger


@dataclass(frozen=True)
class Limit:
    """How many tokens a row may have, and what sets the limit."""

    tokens: int
    name: str


def tokenizer_and_limit(policy: Path, code: ModelCode, pack_to: int | None = None) -> tuple[object, Limit]:
    """A policy's tokenizer, and the longest row: the policy's context, or a packed row if that is shorter."""
    context = context_length(load_config(policy, code))
    limit = Limit(context, "the model's context")
    if pack_to is not None and pack_to < context:
        limit = Limit(pack_to, "a packed row (train.pack_to)")
    # Rows beyond the limit are counted by the callers: the tokenizer's own warning of them would only alarm.
    return load_tokenizer(policy, code, model_max_length=sys.maxsize), limit


def report_too_long(counts: Counter[str], limit: Limit) -> dict[str, int]:
    """Log how many rows are left out, and return the count for the stage's manifest."""
    if not counts["too_long"]:
        return {}
    run_logger().warning(
        "%d of %d rows are longer than %s of %d tokens and are left out",
        counts["too_long"],
        counts.total(),
        limit.name,
        limit.tokens,
    )
    return {"too_long": counts["too_long"]}


def nothing_fits(total: int, limit: Limit) -> NothingKeptError:
    """The error for rows of which none fits the limit."""
    return NothingKeptError(
        f"All {total:,} rows are longer than {limit.name} of {limit.tokens:,} tokens, so nothing is left to train on.",
        what_next="Give shorter rows, or raise that limit.",
    )
