"""Rows of data sets, from any kind of file, one after another. What a row must have is decided elsewhere."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.prepare.sources.csv_rows import csv_rows
from data.prepare.sources.errors import DataFileError, Drop
from data.prepare.sources.folders import chosen, listing
from data.prepare.sources.hub_rows import hub_name, hub_rows, require_hub
from data.prepare.sources.json_rows import Located, json_rows, named_lists, shape
from data.prepare.sources.listing import DataFile
from data.prepare.sources.packed import TABLES, kind, opened, packing
from data.rows import Split

__all__ = [
    "DataFileError",
    "FilesRead",
    "Located",
    "data_files",
    "hub_name",
    "is_here",
    "located_rows",
    "named_splits",
    "place",
    "require_hub",
]

CSV = (".csv", ".tsv")
Only = Collection[Split | None] | None


@dataclass
class FilesRead:
    """The files read from data sets.

    Attributes:
        rows: number of rows in each file.
        splits: the split given by each file's name.
        skipped: files and folders that were skipped, and why.
    """

    rows: Counter[str] = field(default_factory=Counter)
    splits: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, file: DataFile, counts: Counter[Split | None], only: Only) -> None:
        """Record a file with its rows by split; a file of several splits is recorded as its lists."""
        for split, count in (counts or Counter({file.split: 0})).items():
            name = str(file.path) if split == file.split else f"{file.path}, {split}"
            if _asked_for(split, only):
                self.rows[name] += count
                if split:
                    self.splits[name] = split
            else:
                self.skipped[name] = _not_asked_for(split)


def located_rows(
    source: Path, files: FilesRead | None = None, drop: Drop | None = None, only: Only = None
) -> Iterator[Located]:
    """The rows of a data set, each with its place, such as "FILE, line 3", counted from 1, and its split: in a folder
    by the file's name, in JSON by the name of the list.

    Only one row is in memory at a time, or one block of a Parquet or Arrow file.

    Args:
        source: JSON (an array of objects, or named lists), JSONL, CSV or TSV, each optionally compressed; Parquet;
            Arrow; a folder of these, or one that `datasets` saved, a LLaMA-Factory data folder or a snapshot of the
            hub, each also as `folder:name[:split]`; or a data set on the hub, `owner/name[:config][:split]`.
        files: updated while reading.
        drop: called for unreadable rows, with the reason; None refuses their file.
        only: the splits that are read, including None for rows without a split; None: all.

    Raises:
        DataFileError: there is nothing, or nothing of these splits; malformed JSON, CSV or UTF-8; a row that is not an
            object.
    """
    files = FilesRead() if files is None else files
    if found := hub_name(source):
        for row in hub_rows(*found):
            files.rows[str(source)] += 1
            yield row
        return
    listed = listing(source)
    read = {str(path) for path in listed.told_by}
    files.skipped.update({path: why for path, why in listed.skipped.items() if path not in read})
    left_out = [file for file in listed.files if not _asked_for(file.split, only) and not _has_lists(file)]
    passed = {str(file.path): _not_asked_for(file.split) for file in left_out}
    files.skipped.update(passed)
    if left_out and len(left_out) == len(listed.files):
        raise DataFileError(
            f"{source} has no file to read for this: {left_out[0].path} is of {left_out[0].split}.",
            what_next="Name a file directly; then it is read whatever its name.",
        )
    for file in listed.files:
        if str(file.path) not in passed:
            yield from _counted(file, files, drop, only)


def data_files(source: Path) -> list[Path]:
    """The files that a local data set's rows depend on: those that are read, and those that describe how.

    Raises:
        DataFileError: there are none.
    """
    listed = listing(source)
    return sorted({file.path for file in listed.files} | set(listed.told_by))


def named_splits(source: Path) -> frozenset[Split]:
    """The splits that the files of a folder, or the lists of a JSON file, are named after; empty for a chosen split
    and for a data set on the hub.

    Raises:
        DataFileError: the data set does not exist or cannot be read.
    """
    if hub_name(source):
        return frozenset()
    found: set[Split] = set()
    for file in listing(source).files:
        if file.split:
            found.add(file.split)
        elif _has_lists(file):
            found |= named_lists(file.path)
    return frozenset(found)


def is_here(source: Path) -> bool:
    """Whether a data set is on this machine."""
    return place(source).exists()


def place(source: Path) -> Path:
    """The file or folder of a data set, without the chosen name and split."""
    return chosen(source)[0]


def _asked_for(split: Split | None, only: Only) -> bool:
    return only is None or split in only


def _not_asked_for(split: Split | None) -> str:
    return f"it is of {split or 'no split'}, which was not requested"


def _has_lists(file: DataFile) -> bool:
    """Whether a file may hold several splits: JSON with named lists of rows."""
    return file.split is None and kind(file.path) not in (*TABLES, *CSV) and shape(file.path) == "lists"


def _counted(file: DataFile, files: FilesRead, drop: Drop | None, only: Only) -> Iterator[Located]:
    counts: Counter[Split | None] = Counter()
    try:
        for at, row, split in _file_rows(file, drop, files.skipped):
            counts[split] += 1
            if _asked_for(split, only):
                yield at, row, split
    finally:
        files.add(file, counts, only)


def _file_rows(file: DataFile, drop: Drop | None, skipped: dict[str, str]) -> Iterator[Located]:
    rows = _rows(file, drop, skipped)
    if file.layout is None:
        return rows
    change = file.layout.row
    return ((at, change(row), split) for at, row, split in rows)


def _rows(file: DataFile, drop: Drop | None, skipped: dict[str, str]) -> Iterator[Located]:
    path = file.path
    if kind(path) in TABLES:
        yield from _table(file)
        return
    with opened(path) as (content, known):
        if known in CSV:
            yield from csv_rows(content, path, "\t" if known == ".tsv" else ",", file.split, drop)
        else:
            yield from json_rows(content, path, shape(path), file.split, drop, skipped)


def _table(file: DataFile) -> Iterator[Located]:
    from data.prepare.sources.table_rows import table_rows

    if packed := packing(file.path):
        raise DataFileError(f"{file.path}: a table compressed as {packed} is not read.", what_next="Unpack it.")
    yield from table_rows(file.path, kind(file.path), file.split)
