"""How the value in an answer field becomes text, and which values are rejected."""

import json
import math
from decimal import Decimal
from typing import Any

from data.formats.record import ContentError, Row, is_missing, short, text

BARE = ("answer", "final_answer", "expected_answer", "ground_truth")  # columns of bare answers
LABELS = ("label", "kto_tag", "desirable")  # columns that label an answer as liked or not
DISLIKES = {"false", "0", "0.0", "-1", "-1.0", "no", "undesirable", "disliked", "dislike", "rejected", "bad"}
DISLIKES |= {"negative", "wrong", "incorrect", "thumbs_down", "downvote"}
LIKES = {"true", "1", "1.0", "yes", "desirable", "liked", "like", "chosen", "accepted", "good", "positive"}
LIKES |= {"right", "correct", "thumbs_up", "upvote"}
NANS = ("nan", "NaN")  # as pandas writes an empty cell that it has made a text
SEVERAL = "several answers"


def is_blank(row: Row, name: str) -> bool:
    """Whether a field is absent or missing, or holds a blank text or an empty list."""
    value = row.get(name)
    return is_missing(value) or value == [] or (isinstance(value, str) and not value.strip())


def bare_column(row: Row) -> str | None:
    """The non-empty column of a bare answer; of several, a specific name rather than `answer`."""
    return next((name for name in (*BARE[1:], BARE[0]) if not is_blank(row, name)), None)


def is_dislike(value: Any) -> bool:
    """Whether a label marks an answer as disliked: false, also as a number, CSV text or name."""
    if isinstance(value, str):
        return value.strip().lower() in DISLIKES
    return isinstance(value, bool | int | float | Decimal) and value in (0, -1)


def is_like(value: Any) -> bool:
    """Whether a label marks an answer as liked, in the same ways."""
    if isinstance(value, str):
        return value.strip().lower() in LIKES
    return isinstance(value, bool | int | float | Decimal) and value == 1


def answer(row: Row, name: str) -> str:
    """The answer in a field, as text.

    A text stays as it is. Whole numbers lose their decimal point (2.0 is 2), others are written without exponent and
    trailing zeros; booleans are True and False; a list of one item, also as JSON text (`["2"]`), is that item.

    Raises:
        RowError: the value is missing, NaN, infinite, several answers, or of another type.
    """
    value = row.get(name)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list) and value:
        raise ContentError(SEVERAL, f"{name!r} holds {len(value)} answers ({short(value)}). Keep one of them")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float | Decimal):
        return _number(value, name)
    return _unlisted(text({**row, name: value}, name), name)


def bare_answer(row: Row, name: str) -> str:
    """The same for a column of bare answers, in which a text that stands for NaN is no answer either."""
    said = answer(row, name)
    if said in NANS:
        raise _no_answer(said, name)
    return said


def _number(value: int | float | Decimal, name: str) -> str:
    if isinstance(value, int):
        return _digits(value, name)
    if not math.isfinite(value):
        raise _no_answer(value, name)
    exact = Decimal(repr(value)) if isinstance(value, float) else value
    written = format(exact, "f")
    written = written.rstrip("0").rstrip(".") if "." in written else written
    return "0" if written == "-0" else written


def _no_answer(value: Any, name: str) -> ContentError:
    return ContentError(f"{value!s} in {name}".lower(), f"{name!r} is {value}, which is not an answer")


def _digits(value: int, name: str) -> str:
    try:
        return str(value)
    except ValueError:
        raise ContentError(f"too long {name}", f"{name!r} is a number of too many digits") from None


def _unlisted(said: str, name: str) -> str:
    """The text itself, or the only item of the list that it spells out."""
    if not (said.lstrip().startswith('["') and said.rstrip().endswith('"]')):
        return said
    try:
        listed: Any = json.loads(said)
    except (ValueError, RecursionError):
        return said
    return answer({name: listed}, name) if isinstance(listed, list) else said
