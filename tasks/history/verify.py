"""Verifying a run: every file is read and compared with its stage's manifest."""

from collections.abc import Iterator
from pathlib import Path

from tasks.stage.contract import CorruptStageError, Finished, read_manifest
from tasks.stage.freed import freed_stages
from tasks.stage.run import RunDirectoryError


def verify_run(directory: Path) -> list[str]:
    """Return a sentence for every damaged file or manifest; empty if everything is intact.

    Takes as long as reading all files. Attempts, which are hidden folders beside the stages, are skipped.

    Raises:
        RunDirectoryError: there is no stage.
    """
    stages = list(_stages(directory)) if directory.is_dir() else []
    if not stages:
        raise RunDirectoryError(
            f"There is no finished stage in {directory}.",
            what_next="Give the folder of a run, as runs/NAME.",
        )
    return [damage for stage in stages for damage in _damages(stage)]


def freed_in(directory: Path) -> list[str]:
    """Return a sentence for every stage of a run with freed files, which is not damage."""
    return [f"{stage}: {freed}." for stage, freed in freed_stages(directory)]


def _stages(folder: Path) -> Iterator[Path]:
    """Yield folders with a manifest, and folders with files but no manifest."""
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if any(p.is_file() for p in path.iterdir()):
            yield path
        else:
            yield from _stages(path)


def _damages(stage: Path) -> list[str]:
    try:
        return list(Finished(stage, read_manifest(stage)).damages())
    except CorruptStageError as error:
        return [error.what]
