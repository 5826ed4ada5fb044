"""A user's data sets as inputs of stages: their digests, their sizes, and how many rows they have."""

import hashlib
import os
from collections import Counter
from collections.abc import Collection
from itertools import islice
from pathlib import Path
from typing import Any

from data.files import file_sha256
from data.hub import hub_is_off, why_unreachable
from data.prepare.sources import (
    DataFileError,
    FilesRead,
    data_files,
    hub_name,
    is_here,
    located_rows,
    named_splits,
    place,
    require_hub,
)
from data.prepare.sources.names import serving
from data.rows import Split
from data.wording import counted
from tasks.stage.contract import Artifact
from tasks.stage.logs import run_logger

SHOWN = 20  # files


def dataset_artifact(source: Path, planning: bool = False) -> Artifact:
    """Return a data set with its digest: of a file's content, a folder's names and contents, or a hub revision.

    A missing data set has no digest. While `planning`, neither has one on a hub that does not answer.

    Raises:
        DataFileError: the hub does not answer, or has no such data set.
    """
    if found := hub_name(source):
        unknown = planning and (hub_is_off() or why_unreachable() is not None)
        return Artifact(source, None if unknown else _hub_revision(found[0], str(source)))
    if source.is_file():
        return Artifact(source, file_sha256(source))
    if not is_here(source):
        return Artifact(source, None)
    files = data_files(source)
    folder = place(source)
    choice = str(source).removeprefix(str(folder))
    lines = (f"{os.path.relpath(path, folder)} {file_sha256(path)}\n" for path in files)
    return Artifact(source, hashlib.sha256("".join((choice, *lines)).encode()).hexdigest())


def dataset_bytes(source: Path) -> int:
    """Size of a data set on this machine's disk, in bytes; 0 if it is missing."""
    if hub_name(source) or not is_here(source):
        return 0
    return sum(path.stat().st_size for path in data_files(source))


def expected_rows(source: Path | None, serve: Split | None = None) -> int:
    """Count the rows of a local data set that serves as the given split; 0 if they cannot be counted."""
    return expected_splits(source, serve).total() if source else 0


def expected_splits(source: Path, serve: Split | None = None, given: Collection[Split] = ()) -> Counter[Split | None]:
    """Count the rows of a local data set by the split that names give; empty if it is on the hub, missing, or
    unreadable.

    Args:
        serve, given: see `data.prepare.sources.names.serving`.
    """
    try:
        only = serving(serve, named_splits(source), given) if is_here(source) else None
        return Counter(split for _, _, split in located_rows(source, only=only)) if is_here(source) else Counter()
    except DataFileError:
        return Counter()


def log_files(files: FilesRead) -> None:
    """Log the number of rows in each file, and the files that were skipped and why."""
    log = run_logger()
    for name, count in islice(files.rows.items(), SHOWN):
        split = f", {files.splits[name]}" if name in files.splits else ""
        log.info("Read %s: %s%s", name, counted(count, "row"), split)
    if len(files.rows) > SHOWN:
        more = counted(len(files.rows) - SHOWN, "more file")
        log.info("Read %s: %s in all", more, counted(files.rows.total(), "row"))
    for name, why in islice(files.skipped.items(), SHOWN):
        log.warning("Not read: %s: %s", name, why)
    if len(files.skipped) > SHOWN:
        log.warning("Not read: %s", counted(len(files.skipped) - SHOWN, "more file"))


def files_noted(files: FilesRead) -> dict[str, dict[str, Any]]:
    """Return the same as JSON."""
    return {"files": dict(files.rows), "file_splits": files.splits, "skipped_files": files.skipped}


def _hub_revision(name: str, source: str) -> str:
    from huggingface_hub import HfApi

    require_hub(source)
    try:
        revision = HfApi().dataset_info(name).sha
    except Exception as problem:
        raise DataFileError(
            f"There is no file {source}, and the latest revision of {name} could not be found on the hub ({problem}).",
            what_next=f"Check the name or the path; it is relative to {Path.cwd()}.",
        ) from problem
    return hashlib.sha256(f"{source} {revision}".encode()).hexdigest()
