"""The configurations of a snapshot of the hub: named in its README, or one folder each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.prepare.sources.errors import unreadable
from data.prepare.sources.listing import DataFile
from data.prepare.sources.names import split_named, split_of_path
from data.prepare.sources.registry import read_object

CARD, INFOS = "README.md", "dataset_infos.json"
LARGEST = 1 << 20  # characters of a README that are read
FENCE = "---"


@dataclass(frozen=True)
class Configurations:
    """The configurations of a snapshot.

    Attributes:
        files: the files of each configuration, by name.
        default: the one that is read if none is chosen; None if there is no default.
        told_by: the files that define them.
    """

    files: dict[str, list[DataFile]]
    default: str | None
    told_by: list[Path]


def configurations(folder: Path, files: list[Path]) -> Configurations | None:
    """The configurations of a folder; None if it is one data set.

    Args:
        files: all data files below it.

    Raises:
        DataFileError: its README cannot be read.
    """
    known = set(files)
    named = {name: (_matching(folder, entry, known), entry) for name, entry in _of_card(folder)}
    if found := {name: matching for name, (matching, _) in named.items() if matching}:
        default = next((name for name in found if named[name][1].get("default") is True or name == "default"), None)
        return Configurations(found, next(iter(found)) if len(named) == 1 else default, [folder / CARD])
    apart: dict[str, list[DataFile]] = {}
    for file in files:
        first, *rest = file.relative_to(folder).parts
        if rest and not split_named(first):
            apart.setdefault(first, []).append(DataFile(file, split_of_path(Path(*rest))))
    described = read_object(folder / INFOS) or {}
    if described and any(name in apart for name in described):
        found = {name: found for name, found in apart.items() if name in described}
        told_by = [folder / INFOS]
    else:
        found = {name: found for name, found in apart.items() if any(file.split for file in found)}
        told_by = []
    lone = any(len(file.relative_to(folder).parts) == 1 for file in files)
    if len(found) < 2 or (lone and not described):
        return None
    return Configurations(found, "default" if "default" in found else None, told_by)


def _of_card(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations in a README's YAML header, as the hub reads it."""
    head = _head(folder / CARD)
    entries = head.get("configs") if isinstance(head, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("data_files"):
            yield str(entry.get("config_name", "default")), entry


def _head(card: Path) -> Any:
    if not card.is_file():
        return None
    try:
        with card.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(LARGEST)
    except OSError as problem:
        raise unreadable(card, problem) from None
    if not text.startswith(f"{FENCE}\n") or f"\n{FENCE}" not in text[len(FENCE) :]:
        return None
    try:
        return yaml.safe_load(text[len(FENCE) : text.index(f"\n{FENCE}", len(FENCE))])
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError, ArithmeticError):
        return None


def _matching(folder: Path, entry: dict[str, Any], files: Collection[Path]) -> list[DataFile]:
    """The files of a configuration: one pattern, several, or patterns by split."""
    given = entry["data_files"]
    base = str(entry.get("data_dir") or ".")
    found: dict[Path, DataFile] = {}
    for part in given if isinstance(given, list) else [given]:
        called = str(part["split"]) if isinstance(part, dict) and part.get("split") else None
        split = split_named(called) if called else None
        patterns = part.get("path") if isinstance(part, dict) else part
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            for path in _glob(folder, f"{base}/{pattern}"):
                if path in files:
                    own = split or split_of_path(path.relative_to(folder))
                    found.setdefault(path, DataFile(path, own, called=called))
    return [found[path] for path in sorted(found)]


def _glob(folder: Path, pattern: str) -> list[Path]:
    """The matches below the folder; nothing if the pattern is invalid."""
    try:
        return sorted(folder.glob(pattern))
    except (ValueError, NotImplementedError, IndexError):
        return []
