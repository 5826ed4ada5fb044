"""The record that a row of any format becomes, and readers of plain fields. Messages are read in `chat`."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from data.errors import AutodidactError

Message = dict[str, str]
Row = Mapping[str, Any]
Use = Literal["problems", "programs", "demonstrations", "pairs", "prompts", "passages"]


class RowError(AutodidactError):
    """A row cannot be used. `reason` is the key under which such rows are counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.args = (reason, message)
        self.reason = reason


class ContentError(RowError):
    """A row has all its columns, but their content cannot be used."""


class LeftOutError(RowError):
    """A sound row that is left out because its format marks it as teaching nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """A prompt and what a row has for it.

    Attributes:
        messages: the turns up to the answer; the last is the user's. Empty for a passage.
        response: the gold answer; of a pair, the preferred one; the text of a passage.
        rejected: the dispreferred answer of a pair.
        reference: what a verifier needs: a text that ends in the final answer, or tests as JSON.
        source: the data set named in the row itself.
        split: the split named in the row itself.
        file_split: the split given by the file's name.
        unweighted: an earlier answer among `messages` has weight 0.
    """

    messages: list[Message]
    response: str | None = None
    rejected: str | None = None
    reference: str | None = None
    source: str | None = None
    split: str | None = None
    file_split: str | None = None
    unweighted: bool = False


def any_values(row: Row) -> bool:
    """The format is recognized by its columns alone."""
    return True


@dataclass(frozen=True)
class Format:
    """A format: the columns it is recognized by, and how a row is read.

    Attributes:
        read: the records of a row. Raises RowError.
        uses: what its rows can serve as.
        required: columns that every row has, separated by spaces; `text|prompt` means either.
        optional: columns that are read if present.
        fits: whether a row with these columns has values of this format.
        demonstrate: the records of a row as demonstrations, if they differ.
        ask: the records of a row as prompts alone, if they can be read without its answers.
    """

    name: str
    about: str
    read: Callable[[Row], Iterable[Record]]
    uses: tuple[Use, ...]
    required: str
    optional: str = ""
    fits: Callable[[Row], bool] = any_values
    demonstrate: Callable[[Row], Iterable[Record]] | None = None
    ask: Callable[[Row], Iterable[Record]] | None = None

    @property
    def needs(self) -> list[str]:
        return self.required.split()


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def is_missing(value: Any) -> bool:
    """Whether a value stands for an absent one: null, or NaN, which pandas writes into empty cells."""
    return value is None or (isinstance(value, float | Decimal) and math.isnan(value))


def text(row: Row, name: str) -> str:
    """The text in a field.

    Raises:
        RowError: the field is absent, not a text, or blank.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        reason = "no" if value is None else "empty" if isinstance(value, str) else "not text in"
        raise RowError(f"{reason} {name}", f"no {name!r} ({found(row, name)})")
    return value


def optional_text(row: Row, name: str) -> str:
    """The text in a field that may be absent, missing or blank; empty in all three cases."""
    value = row.get(name)
    return "" if is_missing(value) or (isinstance(value, str) and not value.strip()) else text(row, name)


def items(row: Row, name: str) -> list[Any]:
    """The list in a field.

    Raises:
        RowError: the field is absent, not a list, or empty.
    """
    value = row.get(name)
    if not isinstance(value, list) or not value:
        raise RowError(f"no {name}", f"{name!r} is {short(value)}. It must be a non-empty list.")
    return value


def found(row: Row, name: str) -> str:
    """Describe, for an error message, what the row has instead of the field `name`."""
    return f"{name} is {short(row[name])}" if name in row else f"fields {', '.join(map(repr, row)) or 'none'}"


def short(value: Any) -> str:
    """A value shortened for an error message, to at most 60 characters."""
    said = repr(value)
    return said if len(said) <= 60 else said[:57] + "…"
