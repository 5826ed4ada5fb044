"""Rows that Autodidact wrote itself, as `autodidact data format` leaves them."""

from collections.abc import Iterator

from data.formats.record import Format, Record, Row, Use, items, optional_text, text, turns


def _problem(row: Row) -> Iterator[Record]:
    response, reference = optional_text(row, "response"), optional_text(row, "reference")
    yield Record(turns(items(row, "messages"), "messages"), response or None, reference=reference or None)


def _demonstration(row: Row) -> Iterator[Record]:
    text(row, "response")
    yield from _problem(row)


def _pair(row: Row) -> Iterator[Record]:
    yield Record(turns(items(row, "messages"), "messages"), text(row, "chosen"), text(row, "rejected"))


ALL: tuple[Use, ...] = ("problems", "demonstrations", "programs", "prompts")
PAIRS: tuple[Use, ...] = ("pairs", "demonstrations")
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
