"""Disk usage: the bytes of each run, by kind. Writes nothing."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKPOINTS, TRAINING, ROWS, OTHER = "checkpoints", "training", "rows", "other"
KINDS = (CHECKPOINTS, TRAINING, ROWS, OTHER)


@dataclass(frozen=True)
class Usage:
    """The bytes of a run by kind. Links to files elsewhere take none, and a file with several names counts once.

    The kinds: policies and adapters; checkpoints of unfinished training, with the optimizer state; samples and other
    rows; everything else.
    """

    name: str
    bytes: dict[str, int]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


def disk_usage(runs: Sequence[Path]) -> tuple[list[Usage], Usage]:
    """Return the usage of each run, and of all together, where files shared by several runs also count once."""
    found = {run: dict(_files(run)) for run in runs}
    everything = {inode: what for files in found.values() for inode, what in files.items()}
    return [_usage(run.name, files.values()) for run, files in found.items()], _usage("total", everything.values())


def _usage(name: str, files: Iterable[tuple[str, int]]) -> Usage:
    taken = dict.fromkeys(KINDS, 0)
    for kind, size in files:
        taken[kind] += size
    return Usage(name, taken)


def _files(run: Path) -> Iterator[tuple[tuple[int, int], tuple[str, int]]]:
    """Yield every file by its device and inode, with its kind and size."""
    for parent, _, names in os.walk(run):
        kind_here = _folder_kind(Path(parent).relative_to(run).parts)
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a running run removes files that it no longer needs
                continue
            if stat.S_ISREG(found.st_mode):
                kind = kind_here or (ROWS if name.endswith(".parquet") else OTHER)
                yield (found.st_dev, found.st_ino), (kind, found.st_size)


def _folder_kind(parts: Sequence[str]) -> str | None:
    """Return the kind of all files in a folder of a run, if the folder determines it."""
    if {".checkpoints", "state"} & set(parts):
        return TRAINING
    return CHECKPOINTS if {"policy", "adapter"} & set(parts) else None
