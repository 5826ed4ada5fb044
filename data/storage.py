"""Reading and writing rows as Parquet, a batch at a time: memory does not grow with the number of rows."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_BATCH = 8192


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
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=ROWS_PER_BATCH):
                for values in batch.to_pylist():
                    yield row_type(**values)


def count_rows(path: Path) -> int:
    """How many rows there are, from the files' footers alone."""
    return sum(pq.read_metadata(file).num_rows for file in parquet_files(path))


def holds(path: Path, column: str, values: list[Any]) -> bool:
    """Whether a Parquet file can be read and has exactly these values in a column."""
    try:
        with pq.ParquetFile(path) as parquet:
            return bool(parquet.read([column])[column].to_pylist() == values)
    except (OSError, KeyError, pa.ArrowException):
        return False


def write_rows(row_type: type[Row], path: Path, rows: Iterable[Any]) -> int:
    """Stream rows into one Parquet file, which appears whole or not at all, also after a power cut.

    Returns:
        How many rows were written.
    """
    schema: pa.Schema = row_type.SCHEMA
    partial = path.with_name(f".{path.name}.partial")
    count = 0
    remaining = iter(rows)
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            while batch := list(islice(remaining, ROWS_PER_BATCH)):
                columns = [pa.array([getattr(row, f.name) for row in batch], f.type) for f in schema]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
                count += len(batch)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # on a full disk, half a file would keep the error from being recorded
    return count
