"""Texts without a prompt, for which a model can write one."""

from collections.abc import Iterator

from data.formats.instructions import ANSWER_COLUMNS, PROMPT_COLUMNS
from data.formats.record import Format, Record, Row, text

COLUMNS = ("text", "passage", "content", "document")
# With one of these beside it, a text is not a passage but part of a prompt or an answer.
ASIDE = {*ANSWER_COLUMNS, *PROMPT_COLUMNS, "role", "messages"}


def _passage(row: Row) -> Iterator[Record]:
    yield Record([], text(row, next(name for name in COLUMNS if name in row)))


def _is_alone(row: Row) -> bool:
    return not ASIDE & {name.lower() for name in row}


FORMATS = (Format("passages", "texts without prompts", _passage, ("passages",), "|".join(COLUMNS), fits=_is_alone),)
