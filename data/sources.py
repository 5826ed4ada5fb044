"""Rows of data sets, whatever file they are in, one after another. What a row must have is decided elsewhere."""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from data.errors import AutodidactError
from data.hub import meant_as_path, why_unreachable

Located = tuple[str, dict[str, Any]]
TABLES = {".parquet": "parquet", ".arrow": "arrow"}
SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", *TABLES)
HUB = re.compile(r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)(?::(?P<config>[\w.-]+))??(?::(?P<split>[\w.-]+))?")
SAVED_DATASET = "dataset_info.json"
BLOCK = 1 << 16  # characters
LONGEST_ROW = 1 << 24  # characters of a line of JSON, a row of an array, or a field of CSV
LONGEST_SIGN = 12  # characters of an escaped pair of surrogates, which the end of a block may cut


class DataFileError(AutodidactError):
    """A file of the user's cannot be used; the message names file, line and field."""


def located_rows(source: Path) -> Iterator[Located]:
    """The rows of a data set, each with its place, such as "FILE, line 3"; counted from 1.

    Only one row is held at a time, or one block of a Parquet or Arrow file.

    Args:
        source: JSON (an array of objects), JSONL, CSV or TSV, each of them also with .gz; Parquet; Arrow; a folder of
            these, or one that `datasets` saved; or a data set on the hub, `owner/name[:config][:split]`.

    Raises:
        DataFileError: nothing is there; malformed JSON, CSV or UTF-8; a row that is not an object.
    """
    if found := hub_name(source):
        yield from _hub_rows(*found)
    elif source.is_dir() and (source / SAVED_DATASET).is_file():
        yield from _saved_rows(source)
    else:
        for file in data_files(source):
            yield from _file_rows(file)


def hub_name(source: Path) -> tuple[str, str | None, str] | None:
    """Name, configuration and split of a data set on the hub; None if `source` is, or looks like, a file."""
    match = None if source.exists() or source.is_absolute() or _kind(source) else HUB.fullmatch(str(source))
    return (match["name"], match["config"], match["split"] or "train") if match else None


def data_files(source: Path) -> list[Path]:
    """The files that `source` names: itself, or those below it, sorted; but none with a leading dot or underscore.

    Raises:
        DataFileError: there is none.
    """
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataFileError(f"There is no file {source}.", what_next=f"Check the path; it is relative to {Path.cwd()}.")
    files = sorted(path for path in source.rglob("*") if path.is_file() and _kind(path) and path.name[0] not in "._")
    if not files:
        raise DataFileError(
            f"The folder {source} holds no data file.",
            what_next=f"Known are {', '.join(SUFFIXES)}, the text ones also with .gz.",
        )
    return files


def _kind(path: Path) -> str:
    """The suffix that tells how a file is read, without .gz; empty if it is no data file."""
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    return suffix if suffix in SUFFIXES else ""


def _file_rows(path: Path) -> Iterator[Located]:
    kind = _kind(path)
    if kind in TABLES:
        yield from _table_rows(path, TABLES[kind])
        return
    read: Callable[[IO[bytes], Path], Iterator[Located]] = _line_rows
    if kind in (".csv", ".tsv"):
        read = _csv_rows
    try:
        with _open(path) as file:
            if kind == ".json" and file.peek(1024)[:1024].removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                read = _array_rows
            yield from read(file, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as problem:
        raise DataFileError(f"{path}: broken gzip ({problem}).", what_next="Fetch the file again.") from None
    except OSError as problem:
        raise _unreadable(path, problem) from None


def _unreadable(path: Path, problem: OSError) -> DataFileError:
    return DataFileError(
        f"{path} cannot be read: {problem.strerror or problem}.", what_next="See that you may read it."
    )


def _open(path: Path) -> io.BufferedReader:
    return io.BufferedReader(gzip.open(path)) if path.suffix == ".gz" else path.open("rb")  # type: ignore[arg-type]


def _line_rows(file: IO[bytes], path: Path) -> Iterator[Located]:
    advice = "Each line must be one JSON object."
    number = 0
    try:
        for number, line in enumerate(_lines(file, path), start=1):
            if line.strip():
                at = f"{path}, line {number}"
                try:
                    row = json.loads(line, object_pairs_hook=_unique)
                except (ValueError, RecursionError) as problem:
                    raise DataFileError(f"{at}: malformed JSON ({problem}).", what_next=advice) from None
                yield at, _object(row, at, advice)
    except UnicodeDecodeError as problem:
        raise _not_utf8(f"{path}, after line {number}", problem) from None


def _lines(file: IO[bytes], path: Path) -> Iterator[str]:
    """The lines of a file as they are. One that is too long is not read to its end: 0.4 MB of gzip can hold 400 MB."""
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    for number, line in enumerate(iter(lambda: text.readline(LONGEST_ROW + 1), ""), start=1):
        if len(line) > LONGEST_ROW:
            raise DataFileError(
                f"{path}, line {number}: it has more than {LONGEST_ROW:,} characters.",
                what_next="Write one row to a line, and split what is longer.",
            )
        yield line


def _array_rows(file: IO[bytes], path: Path) -> Iterator[Located]:
    advice = "The file must hold one JSON array of objects."
    number = 0
    try:
        for number, row in enumerate(_Array(io.TextIOWrapper(file, encoding="utf-8-sig")), start=1):
            at = f"{path}, row {number}"
            yield at, _object(row, at, "Each row must be one JSON object.")
    except UnicodeDecodeError as problem:
        raise _not_utf8(f"{path}, after row {number}", problem) from None
    except (ValueError, RecursionError) as problem:
        raise DataFileError(f"{path}, row {number + 1}: malformed JSON ({problem}).", what_next=advice) from None


class _Array:
    """The items of a JSON array, read block by block.

    Not by ijson, which keeps the path of every value: deep nesting makes that as large as its depth squared.
    """

    def __init__(self, file: IO[str]) -> None:
        self.file = file
        self.decoder = json.JSONDecoder(object_pairs_hook=_unique)
        self.text = ""
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        self._next()
        self.position += 1  # the bracket, which told that this is an array
        sign = self._next()
        while sign != "]":
            yield self._item()
            sign = self._next()
            if sign not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", self.text, self.position)
            if sign == ",":
                self.position += 1
                self._next()
        self.position += 1
        if self._next():
            raise json.JSONDecodeError("Extra data", self.text, self.position)

    def _item(self) -> Any:
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as problem:
                cut = problem.msg.startswith("Unterminated string") or problem.pos >= len(self.text) - LONGEST_SIGN
                if not cut or not self._more():
                    raise
            else:
                if end < len(self.text) or not self._more():  # a number may go on in the next block
                    self.position = end
                    return value

    def _next(self) -> str:
        """The next sign that is not blank, left where it is; empty at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text) or not self._more():
                return self.text[self.position : self.position + 1]

    def _more(self) -> bool:
        """Read a block behind what is left, twice as long each time that it did not suffice."""
        left = self.text[self.position :]
        if len(left) > LONGEST_ROW:
            raise json.JSONDecodeError(f"The row has more than {LONGEST_ROW:,} characters", "", 0)
        block = self.file.read(max(BLOCK, len(left)))
        if block:
            self.text, self.position = left + block, 0
        return bool(block)


def _csv_rows(file: IO[bytes], path: Path) -> Iterator[Located]:
    csv.field_size_limit(LONGEST_ROW)
    reader = csv.DictReader(_lines(file, path), dialect="excel-tab" if _kind(path) == ".tsv" else "excel", strict=True)
    try:
        for row in reader:
            at = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                columns = len(reader.fieldnames or ())
                raise DataFileError(
                    f"{at}: not as many fields as the header has columns ({columns}).",
                    what_next="Quote texts that hold a separator.",
                )
            yield at, row
    except UnicodeDecodeError as problem:
        raise _not_utf8(f"{path}, after line {reader.line_num}", problem) from None
    except csv.Error as problem:
        raise DataFileError(
            f"{path}, line {reader.line_num}: malformed CSV ({problem}).",
            what_next="Quote texts that hold a separator.",
        ) from None


def _table_rows(path: Path, kind: str) -> Iterator[Located]:
    from datasets import load_dataset

    try:
        for number, row in enumerate(load_dataset(kind, data_files=str(path), split="train", streaming=True), start=1):
            yield f"{path}, row {number}", row
    except Exception as problem:
        raise DataFileError(
            f"{path}: not a {kind} file that can be read ({problem}).", what_next="Fetch or write the file again."
        ) from problem


def _saved_rows(folder: Path) -> Iterator[Located]:
    from datasets import load_from_disk

    for number, row in enumerate(load_from_disk(str(folder)), start=1):
        yield f"{folder}, row {number}", row


def _hub_rows(name: str, config: str | None, split: str) -> Iterator[Located]:
    from datasets import load_dataset

    require_hub(name)
    try:
        for number, row in enumerate(load_dataset(name, config, split=split, streaming=True), start=1):
            yield f"{name} on the hub, {split}, row {number}", row
    except Exception as problem:
        raise DataFileError(
            f"There is no file {name}, and the hub gives no data set of that name ({problem}).",
            what_next=f"Check the name, which is owner/name[:config][:split], or the path; it is relative to "
            f"{Path.cwd()}.",
        ) from problem


def require_hub(name: str) -> None:
    """See that a data set that is no file here can be asked of the hub.

    Raises:
        DataFileError: the hub does not answer.
    """
    if why := why_unreachable():
        raise DataFileError(
            f"There is no file {name}, and the hub cannot be asked for a data set of that name.",
            f"{why}.",
            f"{meant_as_path(name)}Check the path, which is relative to {Path.cwd()}, or the network.",
        )


class _RepeatedKeyError(ValueError):
    """An object has a key twice: which of the two is meant cannot be known."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(f"the key {key!r} appears twice")
        found[key] = value
    return found


def _object(row: Any, at: str, advice: str) -> dict[str, Any]:
    try:
        # Refuses what Python reads and JSON or UTF-8 has no place for: NaN, Infinity, lone surrogates.
        json.dumps(row, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as problem:
        raise DataFileError(f"{at}: malformed JSON ({problem}).", what_next=advice) from None
    if not isinstance(row, dict):
        raise DataFileError(f"{at}: {type(row).__name__} is not a JSON object.", what_next=advice)
    return row


def _not_utf8(at: str, problem: Exception) -> DataFileError:
    reason = getattr(problem, "reason", "invalid bytes")
    return DataFileError(f"{at}: not UTF-8 ({reason}).", what_next="Convert the file to UTF-8.")
