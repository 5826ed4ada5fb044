"""Reading and writing rows as Parquet, a batch at a time: memory does not grow with the number of rows."""

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from data.text import encodable

ROWS_PER_BATCH = 8192  # written as one row group
ROWS_AT_ONCE = 1024  # read at a time; by one thread, since each thread would keep its own memory


class Row(Protocol):
    SCHEMA: ClassVar[pa.Schema]


R = TypeVar("R")


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of `path` in order: the file itself, or a folder's shards by name.

    Raises:
        FileNotFoundError: nothing is there.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise FileNotFoundError(f"No Parquet rows at {path}. Has the stage that writes them finished?")
    return files


def read_rows(row_type: type[R], path: Path) -> Iterator[R]:
    """Stream the rows of a file, or of a folder of shards, in the order they were written."""
    for file in parquet_files(path):
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
                for values in batch.to_pylist():
                    yield row_type(**values)


def read_rows_of(row_type: type[R], path: Path, column: str, values: Collection[str]) -> Iterator[R]:
    """The rows of a file with one of these values in a column, in the order they were written."""
    table = pq.read_table(path, filters=[(column, "in", values)], use_threads=False)
    for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
        for row in batch.to_pylist():
            yield row_type(**row)


def count_rows(path: Path) -> int:
    """The number of rows, from the files' footers alone."""
    return sum(pq.read_metadata(file).num_rows for file in parquet_files(path))


def count_by(path: Path, column: str) -> Counter[str]:
    """The number of rows for each value of a column."""
    counts: Counter[str] = Counter()
    for file in parquet_files(path):
        with pq.ParquetFile(file, pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH, columns=[column]):
                counts.update(batch[column].to_pylist())
    return counts


def holds(path: Path, column: str, values: list[Any]) -> bool:
    """Whether a Parquet file is readable and has exactly these values in a column."""
    return column_of(path, column) == values


def column_of(path: Path, column: str) -> list[Any] | None:
    """The values of a column of a Parquet file; None if the file cannot be read, or has no such column."""
    try:
        with pq.ParquetFile(path, pre_buffer=False) as parquet:
            values: list[Any] = parquet.read([column])[column].to_pylist()
            return values
    except (OSError, KeyError, pa.ArrowException):
        return None


def write_rows(row_type: type[Row], path: Path, rows: Iterable[Any]) -> int:
    """Stream rows into one Parquet file, which appears complete or not at all, even after a power failure.

    Returns:
        The number of rows written.
    """
    with RowWriter(row_type, path) as writer:
        for row in rows:
            writer.write(row)
    return writer.count


class RowWriter:
    """Writes rows to one Parquet file, which appears when the block ends without an error."""

    def __init__(self, row_type: type[Row], path: Path) -> None:
        self.path = path
        self.schema: pa.Schema = row_type.SCHEMA
        self.count = 0
        self._partial = path.with_name(f".{path.name}.partial")
        self._batch: list[Any] = []

    def __enter__(self) -> Self:
        self._writer = pq.ParquetWriter(self._partial, self.schema, compression="zstd")
        return self

    def write(self, row: Any) -> None:
        self._batch.append(row)
        self.count += 1
        if len(self._batch) >= ROWS_PER_BATCH:
            self._flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._writer:
                if kind is None:
                    self._flush()
            if kind is None:
                with self._partial.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(
                missing_ok=True
            )  # on a full disk, a partial file would leave no room to record the error

    def _flush(self) -> None:
        if self._batch:
            columns = [_column([getattr(row, f.name) for row in self._batch], f.type) for f in self.schema]
            self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self.schema))
            self._batch.clear()


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate, which a model or a program may write
        return pa.array([_encodable(value) for value in values], kind)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return {key: _encodable(item) for key, item in value.items()} if isinstance(value, dict) else value
