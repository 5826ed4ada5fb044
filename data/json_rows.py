"""Rows of a user's JSON file, and the reading of their fields. Which fields a row must have is decided elsewhere."""

import codecs
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shape = tuple[str, ...]
Message = dict[str, str]


class DataFileError(ValueError):
    """A file of the user's cannot be used; the message names file, line and field."""


@dataclass(frozen=True)
class Dialect:
    """How a chat format writes one message: its two keys, and its names of the roles."""

    role: str
    content: str
    roles: Mapping[str, str]


OPENAI = Dialect("role", "content", {"system": "system", "user": "user", "assistant": "assistant"})


def json_rows(path: Path, error: type[DataFileError] = DataFileError) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, or of a `.json` file that holds one array, each with its place.

    The place is "line 3" of JSONL and "row 3" of an array, counted from 1. JSONL is read line by line, an array as
    a whole.

    Raises:
        DataFileError: as `error`; a missing file, malformed JSON or UTF-8, a row that is not an object.
    """
    if not path.is_file():
        raise error(f"There is no file {path}. Check the path; it is relative to {Path.cwd()}.")
    rows = _array_rows if path.suffix == ".json" and _holds_array(path) else _line_rows
    yield from rows(path, error)


def nearest_shape(row: Mapping[str, Any], shapes: Sequence[Shape]) -> Shape:
    """The shape of whose fields the row has the largest share; of equals, the first."""
    return max(shapes, key=lambda shape: sum(name in row for name in shape) / len(shape))


def text_field(row: Mapping[str, Any], name: str, at: str, needs: str, error: type[DataFileError]) -> str:
    """The text in a field of a row.

    Args:
        at: file and line, for the message.
        needs: what every row needs, for the message.

    Raises:
        DataFileError: as `error`; the field is absent, not a string, or blank.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise error(f"{at}: no {name!r} ({found(row, name)}). {needs}")
    return value


def chat_messages(
    value: Any, name: str, at: str, error: type[DataFileError], dialect: Dialect = OPENAI
) -> list[Message]:
    """The messages in the field `name`, as `{"role": …, "content": …}`; whatever else they carry is left out.

    Raises:
        DataFileError: as `error`; not a list, a message without text, another role, a system message that is not first.
    """
    if not isinstance(value, list) or not value:
        raise error(
            f"{at}: {name!r} is {short(value)}. It must be a list of messages with "
            f"{dialect.role!r} and {dialect.content!r}."
        )
    messages = [_message(turn, f"{at}: turn {n} of {name!r}", error, dialect) for n, turn in enumerate(value, start=1)]
    for number, message in enumerate(messages[1:], start=2):
        if message["role"] == "system":
            raise error(f"{at}: turn {number} of {name!r} is a system message. Only the first turn may be one.")
    return messages


def found(row: Mapping[str, Any], name: str) -> str:
    """What a row has where the field `name` was looked for, for an error message."""
    return f"{name} is {short(row[name])}" if name in row else f"fields {', '.join(map(repr, row)) or 'none'}"


def short(value: Any) -> str:
    """A value as an error message can show it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _holds_array(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _line_rows(path: Path, error: type[DataFileError]) -> Iterator[tuple[str, dict[str, Any]]]:
    advice = "Each line must be one JSON object."
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    at = f"line {number}"
                    yield at, _object(_parsed(line, f"{path}, {at}", advice, error), f"{path}, {at}", advice, error)
        except UnicodeDecodeError as problem:
            raise error(
                f"{path}, after line {number}: not UTF-8 ({problem.reason}). Convert the file to UTF-8."
            ) from None


def _array_rows(path: Path, error: type[DataFileError]) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{path}: not UTF-8 ({problem.reason}). Convert the file to UTF-8.") from None
    rows = _parsed(text, str(path), "The file must hold one JSON array of objects.", error)
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", _object(row, f"{path}, row {number}", "Each row must be one JSON object.", error)


def _parsed(text: str, at: str, advice: str, error: type[DataFileError]) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise error(f"{at}: malformed JSON ({problem}). {advice}") from None


def _object(row: Any, at: str, advice: str, error: type[DataFileError]) -> dict[str, Any]:
    try:
        # Refuses what Python reads and JSON or UTF-8 has no place for: NaN, Infinity, lone surrogates.
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as problem:
        raise error(f"{at}: malformed JSON ({problem}). {advice}") from None
    if not isinstance(row, dict):
        raise error(f"{at}: {type(row).__name__} is not a JSON object. {advice}")
    return row


def _message(turn: Any, at: str, error: type[DataFileError], dialect: Dialect) -> Message:
    if not isinstance(turn, dict):
        raise error(f"{at} is {short(turn)}. Each must be an object with {dialect.role!r} and {dialect.content!r}.")
    role = turn.get(dialect.role)
    if not isinstance(role, str) or role not in dialect.roles:
        known = ", ".join(map(repr, dialect.roles))
        raise error(f"{at} has an unknown {dialect.role!r} ({found(turn, dialect.role)}). Known are {known}.")
    content = text_field(turn, dialect.content, at, "Give every message its text, or remove the row.", error)
    return {"role": dialect.roles[role], "content": content}
