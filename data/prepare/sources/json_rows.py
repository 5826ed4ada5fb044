"""Rows of JSON: one per line, an array, objects spread over several lines, or named lists."""

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

from data.prepare.sources.errors import DataFileError, Drop, leave_out
from data.prepare.sources.json_values import LONGEST_ROW, RepeatedKeyError, Values, unique
from data.prepare.sources.names import split_called
from data.prepare.sources.packed import opened
from data.rows import Split

Located = tuple[str, dict[str, Any], Split | None]
Shape = Literal["lines", "array", "objects", "lists"]
LISTS = ("data", "rows", "examples", "records")  # names of a list of rows, besides those of splits
NOT_READ = "it is named neither after a split nor " + ", ".join(LISTS)
AN_OBJECT = "Each row must be one JSON object."
A_LINE = "Each line must be one JSON object."
A_WHOLE = "The file must hold one JSON array of objects, or one object per line."
TO_UTF8 = "Convert the file to UTF-8."

_decode = json.JSONDecoder(object_pairs_hook=unique).decode


def shape(path: Path) -> Shape:
    """How a JSON file holds its rows, judged by its beginning.

    Raises:
        DataFileError: it cannot be read, or holds columns instead of rows.
    """
    with opened(path) as (file, _):
        if file.peek(1024)[:1024].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
            return "array"
        text = _text(file)
        line = next(filter(str.strip, iter(lambda: text.readline(LONGEST_ROW + 1), "")), "").strip()
        if not line.startswith("{") or (_is_json(line) and any(map(str.strip, text))):
            return "lines"
        _refuse_columns(line, path)
    with opened(path) as (file, _):
        try:
            if next(_lists(Values(_text(file)), {}, path), None):
                return "lists"
        except (ValueError, RecursionError):
            return "lines"
    return "objects" if line == "{" else "lines"


def named_lists(path: Path) -> set[Split]:
    """The splits that the lists of a file are named after. The file is read to its end.

    Raises:
        DataFileError: it cannot be read.
    """
    found = set()
    with opened(path) as (file, _):
        values = Values(_text(file))
        try:
            for name in _lists(values, {}, path):
                found.add(split_called(name))
                while values.another("]"):
                    _passed_over(values)
        except (ValueError, RecursionError):
            pass  # reported when the rows are read
    return {split for split in found if split}


def json_rows(
    file: IO[bytes], path: Path, how: Shape, split: Split | None, drop: Drop | None, skipped: dict[str, str]
) -> Iterator[Located]:
    """The rows of a JSON file.

    Args:
        split: the file's split.
        drop: called for lines and items that are not rows.
        skipped: receives lists that are not read, and why.

    Raises:
        DataFileError: such lines are to be refused; or the beginning of the next row cannot be determined.
    """
    if how == "lines":
        yield from _line_rows(file, path, split, drop)
        return
    values, done = Values(_text(file)), 0
    try:
        for where in _items(values, how, split, skipped, path):
            at = f"{path}, row {done + 1}"
            try:
                row = values.value()
            except RepeatedKeyError as problem:
                leave_out(drop, "repeated key", f"{at}: malformed JSON ({problem})", AN_OBJECT)
            else:
                if _usable(row, None, at, drop):
                    yield at, row, where
            done += 1
    except (ValueError, RecursionError) as problem:
        # If the file was cut off, no other row follows the broken one.
        cut = drop if isinstance(problem, json.JSONDecodeError) and values.cut_off() else None
        leave_out(cut, "malformed JSON", f"{path}, row {done + 1}: malformed JSON ({problem})", A_WHOLE)


def _items(
    values: Values, how: Shape, split: Split | None, skipped: dict[str, str], path: Path
) -> Iterator[Split | None]:
    """Go to each item in turn, with its split; an item must be read before the next."""
    if how == "objects":
        while values.sign():
            yield split
        return
    if how == "array":
        values.enter()
        while values.another("]"):
            yield split
    else:
        for name in _lists(values, skipped, path):
            while values.another("]"):
                yield split_called(name) or split
    values.require_end()


def _lists(values: Values, skipped: dict[str, str], path: Path) -> Iterator[str]:
    """Go into each list of rows of an object in turn, with its name; it must be read to its end before the next."""
    values.enter()
    while values.another("}"):
        name = str(values.value())
        values.expect(":")
        if values.sign() != "[":
            _passed_over(values)
            continue
        values.enter()
        rows = values.sign() in ("{", "]")
        if rows and (split_called(name) or name.lower() in LISTS):
            yield name
        else:
            if rows:
                skipped[f"{path}, {name!r}"] = NOT_READ
            while values.another("]"):
                _passed_over(values)
        values.first = False


def _passed_over(values: Values) -> None:
    with suppress(RepeatedKeyError):
        values.value()


def _line_rows(file: IO[bytes], path: Path, split: Split | None, drop: Drop | None) -> Iterator[Located]:
    for number, line in enumerate(lines(file, path), start=1):
        if line.isspace():
            continue
        at = f"{path}, line {number}"
        try:
            row = _decode(line)
        except RepeatedKeyError as problem:
            leave_out(drop, "repeated key", f"{at}: malformed JSON ({problem})", A_LINE)
        except (ValueError, RecursionError) as problem:
            if is_utf8(line):
                leave_out(drop, "malformed JSON", f"{at}: malformed JSON ({problem})", A_LINE)
            else:
                leave_out(drop, "not UTF-8", f"{at}: not UTF-8", TO_UTF8)
        else:
            if _usable(row, line, at, drop):
                yield at, row, split


def _usable(row: Any, line: str | None, at: str, drop: Drop | None) -> bool:
    """Whether a value is an object that can be written down again, as half a surrogate pair cannot.

    Args:
        line: what it was read from; None if that is not known.
    """
    if not isinstance(row, dict):
        leave_out(drop, "not an object", f"{at}: {type(row).__name__} is not a JSON object", AN_OBJECT)
        return False
    if line is not None and "\\u" not in line and is_utf8(line):
        return True
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as problem:
        undecoded = "\udc80" <= problem.object[problem.start] <= "\udcff" if line is None else not is_utf8(line)
        if undecoded:
            leave_out(drop, "not UTF-8", f"{at}: not UTF-8", TO_UTF8)
        else:
            leave_out(drop, "half a surrogate pair", f"{at}: malformed JSON (half a surrogate pair)", AN_OBJECT)
        return False
    except RecursionError as problem:
        leave_out(drop, "nested too deep", f"{at}: malformed JSON ({problem})", AN_OBJECT)
        return False
    return True


def lines(file: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a file as they are; a byte that is no UTF-8 is half a surrogate pair in them.

    One that is too long is not read to its end: 0.4 MB of gzip can hold 400 MB.

    Raises:
        DataFileError: a line is too long.
    """
    text = _text(file)
    for number, line in enumerate(iter(lambda: text.readline(LONGEST_ROW + 1), ""), start=1):
        if len(line) > LONGEST_ROW:
            raise DataFileError(
                f"{path}, line {number}: it has more than {LONGEST_ROW:,} characters.",
                what_next="Write one row to a line, and split what is longer.",
            )
        yield line


def is_utf8(text: str) -> bool:
    """Whether a text that was read is UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(file: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _refuse_columns(line: str, path: Path) -> None:
    """Refuse a file of one object whose values are columns, as pandas and `datasets` write them."""
    columns = list(_decode(line).values()) if _is_json(line) else []
    numbered = all(isinstance(column, dict) and column and all(map(str.isdigit, column)) for column in columns)
    listed = all(isinstance(c, list) and len(c) > 1 and not isinstance(c[0], dict | list) for c in columns)
    if len(columns) > 1 and (numbered or (listed and len(set(map(len, columns))) == 1)):
        raise DataFileError(
            f"{path} holds a column under each name, not rows.",
            what_next='Write one object for each row, as pandas does with to_json(orient="records", lines=True).',
        )


def _is_json(line: str) -> bool:
    try:
        _decode(line)
    except (ValueError, RecursionError):
        return False
    return True
