"""Rows in Autodidact's own format, as `autodidact data format` writes them."""

from collections.abc import Iterator

from data.formats.chat import turns
from data.formats.record import Format, Record, Row, RowError, Use, items, optional_text, text
from data.rows import SPLITS


def _problem(row: Row) -> Iterator[Record]:
    response, reference = optional_text(row, "response"), optional_text(row, "reference")
    source, split = optional_text(row, "source"), text(row, "split")
    if split not in SPLITS:
        raise RowError("unknown split", f"there is no split {split!r}. The splits are {', '.join(SPLITS)}")
    messages = turns(items(row, "messages"), "messages")
    yield Record(messages, response or None, None, reference or None, source or None, split)


def _demonstration(row: Row) -> Iterator[Record]:
    text(row, "response")
    yield from _problem(row)


def _pair(row: Row) -> Iterator[Record]:
    yield Record(turns(items(row, "messages"), "messages"), text(row, "chosen"), text(row, "rejected"))


ALL: tuple[Use, ...] = ("problems", "demonstrations", "programs", "prompts")
PAIRS: tuple[Use, ...] = ("pairs", "demonstrations", "prompts")
FORMATS = (
    Format(
        "problem-rows",
        "Autodidact's own",
        _problem,
        ALL,
        "id messages reference response source split",
        demonstrate=_demonstration,
    ),
    Format("pair-rows", "Autodidact's own", _pair, PAIRS, "problem_id messages chosen rejected"),
)
