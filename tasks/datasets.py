"""A user's data sets as inputs of stages: their digests, their sizes, and how many rows they have."""

import hashlib
import os
from pathlib import Path

from data.sources import DataFileError, data_files, hub_name, is_here, located_rows, require_hub
from tasks.contract import Artifact
from tasks.files import file_sha256


def dataset_artifact(source: Path) -> Artifact:
    """A data set with its digest: of a file its content, of a folder names and contents, on the hub its revision.

    What is not there has no digest.

    Raises:
        DataFileError: the hub does not answer, or has no such data set.
    """
    if found := hub_name(source):
        return Artifact(source, _hub_revision(found[0], str(source)))
    if source.is_file():
        return Artifact(source, file_sha256(source))
    if not is_here(source):
        return Artifact(source, None)
    files = data_files(source)
    lines = (f"{os.path.relpath(path, source)} {file_sha256(path)}\n" for path in files)
    return Artifact(source, hashlib.sha256("".join(lines).encode()).hexdigest())


def dataset_bytes(source: Path) -> int:
    """How large a data set is on this machine's disk; 0 if it is not there."""
    if hub_name(source) or not is_here(source):
        return 0
    return sum(path.stat().st_size for path in data_files(source))


def expected_rows(source: Path | None) -> int:
    """How many rows a data set here has; none where it is on the hub, not there yet, or cannot be read."""
    try:
        return sum(1 for _ in located_rows(source)) if source is not None and is_here(source) else 0
    except DataFileError:
        return 0


def _hub_revision(name: str, source: str) -> str:
    from huggingface_hub import HfApi

    require_hub(source)
    try:
        revision = HfApi().dataset_info(name).sha
    except Exception as problem:
        raise DataFileError(
            f"There is no file {source}, and the hub does not say which revision of {name} is the newest ({problem}).",
            what_next=f"Check the name or the path; it is relative to {Path.cwd()}.",
        ) from problem
    return hashlib.sha256(f"{source} {revision}".encode()).hexdigest()
