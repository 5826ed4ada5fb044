"""Freed output files of a finished stage: removed on purpose, to free disk space.

`freed.json` beside the manifest records what, when and why. It is written first, as an intent; then the files are
removed, and the record is marked as done. A kill therefore leaves either a complete stage or a removal that the next
start finishes. The manifest does not change: its digests still identify the files.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import UsageError
from data.files import flush, write_json

FREED = "freed.json"
STATE = ("state/*/*.pt",)  # what the next iteration of on-policy learning goes on from
WEIGHTS = ("policy/*.safetensors", *STATE)  # the rest of a checkpoint is small


class FreedError(UsageError):
    """A needed checkpoint was freed; the message says when, why, and what to do."""


class Freed(BaseModel):
    """Record of a stage's freed files.

    Attributes:
        files: their paths within the stage.
        bytes: space gained; a file with another hard link frees none.
        at: when.
        by: what asked for it, such as "keep: best".
        done: whether all files are removed; if not, the removal is in progress or was interrupted.
    """

    model_config = ConfigDict(frozen=True)
    files: tuple[Annotated[str, Field(pattern=r"^(policy/[^/]+\.safetensors|state/[^/]+/[^/]+\.pt)$")], ...]
    bytes: int
    at: datetime
    by: str
    done: bool = False

    def __str__(self) -> str:
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"{count} freed on {self.at.astimezone():%Y-%m-%d} by {self.by}"


def read_freed(stage: Path) -> Freed | None:
    """Return a stage's record of freed files; None if there is no readable one."""
    try:
        return Freed.model_validate_json((stage / FREED).read_bytes())
    except (OSError, ValidationError):
        return None


def freed_files(stage: Path) -> frozenset[str]:
    """Return the files of a stage that were freed, except those restored since, for example from a backup."""
    freed = read_freed(stage)
    if freed is None:
        return frozenset()
    return frozenset(name for name in freed.files if not (freed.done and (stage / name).exists()))


def stage_that_freed(path: Path) -> Path | None:
    """Return the stage whose freed files belong to a path (a policy's folder or the stage itself); None if none do."""
    for stage in (path, path.parent):
        if any((stage / name).is_relative_to(path) for name in freed_files(stage)):
            return stage
    return None


def weights_of(stage: Path, kinds: Sequence[str] = WEIGHTS) -> list[Path]:
    """Return the files of a stage's checkpoint that would be freed.

    The weights of a policy with an adapter beside them are its base's, so that nothing would be gained.
    """
    found = (file for names in kinds for file in stage.glob(names) if not file.is_symlink())
    shared = (stage / "policy" / "adapter").is_dir()
    return sorted(file for file in found if not (shared and file.stat().st_nlink > 1))


def room_made(files: Sequence[Path]) -> int:
    """Bytes gained by removing the files: none for one with another hard link."""
    found = [file.stat() for file in files]
    return sum(stat.st_size for stat in found if stat.st_nlink == 1)


def free(stage: Path, by: str, kinds: Sequence[str] = WEIGHTS) -> Freed | None:
    """Remove the weights of a finished stage and leave a record; None if there are none.

    Args:
        by: what asked for it, for the record.
        kinds: patterns of their files.
    """
    files = weights_of(stage, kinds)
    if not files:
        return None
    names = {str(file.relative_to(stage)) for file in files} | freed_files(stage)
    freed = Freed(files=tuple(sorted(names)), bytes=room_made(files), at=datetime.now(UTC), by=by)
    write_json(stage / FREED, freed.model_dump(mode="json"))
    flush(stage)  # the record reaches the disk before any file is removed
    return _remove(stage, freed)


def finish_freeing(run: Path) -> None:
    """Finish removals in a run's folder that a kill interrupted."""
    for stage, freed in freed_stages(run):
        if not freed.done:
            _remove(stage, freed)


def freed_stages(run: Path) -> Iterator[tuple[Path, Freed]]:
    """Yield the stages of a run with freed files, and their records."""
    for file in sorted(run.glob(f"*/*/{FREED}")):
        if not file.parent.name.startswith(".") and (freed := read_freed(file.parent)) is not None:
            yield file.parent, freed


def _remove(stage: Path, freed: Freed) -> Freed:
    for name in freed.files:
        (stage / name).unlink(missing_ok=True)
    done = freed.model_copy(update={"done": True})
    write_json(stage / FREED, done.model_dump(mode="json"))
    return done


def needed_error(needed_by: str, stage: Path) -> FreedError:
    """Error for a stage that needs a freed checkpoint of its run."""
    run = stage.parents[1]
    return FreedError(
        f"{needed_by} needs the weights of {stage.relative_to(run)}, which are gone: {read_freed(stage)}.",
        what_next="Run the same command again with --on-drift rebuild, which makes them again, or start another run "
        f"from the best policy: --model {run / 'best' / 'policy'}.",
    )


def no_model_error(policy: Path, stage: Path) -> FreedError:
    """Error for a model's folder whose weights were freed."""
    run = stage.parents[1]
    return FreedError(
        f"{policy} no longer has weights: {read_freed(stage)}.",
        what_next=f"Use the best policy of that run, {run / 'best' / 'policy'}, or make it again: delete {stage} and "
        f"run {run.name} again with --keep all.",
    )
