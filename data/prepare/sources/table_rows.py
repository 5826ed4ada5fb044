"""Rows of Parquet and Arrow files, with values restored: label names, and decimals as they were written."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.prepare.sources.errors import DataFileError
from data.prepare.sources.json_rows import Located
from data.rows import Split

ROWS = 1000  # per block
Convert = Callable[[Any], Any]


def table_rows(path: Path, kind: str, split: Split | None) -> Iterator[Located]:
    """The rows of a Parquet or Arrow file. Only one block is in memory at a time.

    Raises:
        DataFileError: it cannot be read.
    """
    try:
        for number, row in enumerate(_parquet(path) if kind == ".parquet" else _arrow(path), start=1):
            yield f"{path}, row {number}", row, split
    except Exception as problem:
        raise DataFileError(
            f"{path}: not a readable {kind[1:]} file ({problem}).", what_next="Download or write the file again."
        ) from problem


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        yield from converted(file.iter_batches(ROWS), file.schema_arrow)


def _arrow(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        whole = file.read(6) == b"ARROW1"
        file.seek(0)
        if whole:
            reader = pa.ipc.open_file(file)
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            reader = pa.ipc.open_stream(file)
            batches = iter(reader)
        yield from converted(batches, reader.schema)


def converted(batches: Iterator[Any], schema: Any) -> Iterator[dict[str, Any]]:
    """The rows of Arrow's record batches."""
    change = converter(schema)
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS):
            yield from map(change, batch.slice(start, ROWS).to_pylist())


def converter(schema: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that restores the intended values in a row of Arrow's plain values.

    If `datasets` wrote the schema, its features tell which numbers are labels and which lists of fields are lists of
    objects.
    """
    features = _features(schema)
    if twice := {name for name in schema.names if schema.names.count(name) > 1}:
        raise ValueError(f"two columns of one name: {', '.join(sorted(twice))}")
    changes = {field.name: _change(field.type, features.get(field.name)) for field in schema}
    needed = {name: change for name, change in changes.items() if change}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        return row | {name: needed[name](row[name]) for name in needed if row[name] is not None}

    return change if needed else lambda row: row


def _features(schema: Any) -> Mapping[str, Any]:
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _change(kind: Any, feature: Any) -> Convert | None:
    """The conversion of a value of Arrow's type `kind`; None if nothing changes."""
    from pyarrow import types

    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list):
        names = [*feature["names"], None]  # -1 is no label
        return lambda value: names[value] if isinstance(value, int) and -1 <= value < len(names) - 1 else value
    if types.is_float32(kind) or types.is_float16(kind):
        return _shortest(kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _each(_change(kind.value_type, _inner(feature)))
    if types.is_struct(kind):
        return _fields(kind, feature)
    return None


def _shortest(kind: Any) -> Convert:
    """The shortest decimal for this number at its precision: 0.1, not 0.10000000149011612 as in 64 bits."""
    dtype = kind.to_pandas_dtype()
    return lambda value: float(str(dtype(value)))


def _each(change: Convert | None) -> Convert | None:
    if change is None:
        return None
    return lambda values: [None if value is None else change(value) for value in values]


def _fields(kind: Any, feature: Any) -> Convert | None:
    inner = _inner(feature)
    of_lists = isinstance(feature, dict) and feature.get("_type") == "Sequence" and isinstance(inner, dict)
    fields = [kind.field(number) for number in range(kind.num_fields)]
    said = inner if of_lists else feature if isinstance(feature, dict) else {}
    changes = {
        field.name: _change(field.type, {"feature": said.get(field.name)} if of_lists else said.get(field.name))
        for field in fields
    }
    needed = {name: change for name, change in changes.items() if change}
    turned = of_lists and all(hasattr(field.type, "value_type") for field in fields)
    if not needed and not turned:
        return None

    def change(value: dict[str, Any]) -> Any:
        new = value | {name: needed[name](value[name]) for name in needed if value[name] is not None}
        return _objects(new) if turned else new

    return change


def _objects(lists: dict[str, list[Any] | None]) -> Any:
    """Lists of fields as a list of objects; unchanged if their lengths differ."""
    columns = [values or [] for values in lists.values()]
    if len({len(values) for values in columns}) > 1:
        return lists
    return [dict(zip(lists, values, strict=True)) for values in zip(*columns, strict=True)]


def _inner(feature: Any) -> Any:
    if isinstance(feature, list):
        return feature[0] if feature else None
    return feature.get("feature") if isinstance(feature, dict) else None
