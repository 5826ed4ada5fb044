"""Rows of a data set as lists, with the splits that names say and what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data.prepare.sources import DataFileError, FilesRead, located_rows

SUMS = [{"question": f"What is {n} plus 3?", "answer": str(n + 3)} for n in range(5)]


@dataclass
class Read:
    rows: list[Any] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    files: FilesRead = field(default_factory=FilesRead)

    @property
    def counts(self) -> dict[str, int]:
        """Rows by the name of their file."""
        return {Path(name).name: count for name, count in self.files.rows.items()}

    @property
    def skipped(self) -> dict[str, str]:
        return {Path(name).name: why for name, why in self.files.skipped.items()}


def read(source: Path, drop: bool = False) -> Read:
    found = Read()
    keep = (lambda reason, where: found.dropped.append(reason)) if drop else None
    for _, row, split in located_rows(source, found.files, keep):
        found.rows.append(row)
        found.splits.append(split)
    return found


def refusal(source: Path, drop: bool = False) -> str:
    with pytest.raises(DataFileError) as refused:
        read(source, drop)
    assert len(str(refused.value)) < 800
    return str(refused.value)


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def line(number: int) -> str:
    """A file of one row, which tells it from others."""
    return f'{{"question": "What is {number}?", "answer": "{number}"}}\n'
