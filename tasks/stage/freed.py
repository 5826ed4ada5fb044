"""Output files of a finished stage that were freed: removed on purpose, to make room on the disk.

`freed.json` beside the manifest says what, when and why. It is written first, as an intent; then the files are removed,
and then it says that they are. So a kill leaves either a whole stage, or one whose removal the next start finishes. The
manifest stays as it is: its digests still say what the files were.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import UsageError
from data.files import flush, write_json

FREED = "freed.json"
WEIGHTS = "policy/*.safetensors"  # a checkpoint's files that are freed: configuration, tokenizer and adapter are small


class FreedError(UsageError):
    """A checkpoint is needed that was freed; the message says when, why, and what to do."""


class Freed(BaseModel):
    """What of a stage was freed.

    Attributes:
        files: their paths within the stage.
        bytes: by how much that made room; a file that has another name too makes none.
        at: when.
        by: on whose word, such as "keep: best".
        done: whether all are removed; if not, a removal is under way or was interrupted.
    """

    model_config = ConfigDict(frozen=True)
    files: tuple[Annotated[str, Field(pattern=r"^policy/[^/]+\.safetensors$")], ...]
    bytes: int
    at: datetime
    by: str
    done: bool = False

    def __str__(self) -> str:
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"{count} freed on {self.at.astimezone():%Y-%m-%d} by {self.by}"


def read_freed(stage: Path) -> Freed | None:
    """What of the stage at that path was freed; None where nothing was, or where no record of it can be read."""
    try:
        return Freed.model_validate_json((stage / FREED).read_bytes())
    except (OSError, ValidationError):
        return None


def freed_files(stage: Path) -> frozenset[str]:
    """The files of a stage that are gone on purpose. One that was put back, as from a backup, is there again."""
    freed = read_freed(stage)
    if freed is None:
        return frozenset()
    return frozenset(name for name in freed.files if not (freed.done and (stage / name).exists()))


def stage_that_freed(path: Path) -> Path | None:
    """The stage of which what was freed lies at a path, that of a policy's folder or of the stage; None: nothing."""
    for stage in (path, path.parent):
        if any((stage / name).is_relative_to(path) for name in freed_files(stage)):
            return stage
    return None


def weights_of(stage: Path) -> list[Path]:
    """The files of a stage's checkpoint that would be freed."""
    return sorted(file for file in stage.glob(WEIGHTS) if not file.is_symlink())


def room_made(files: Sequence[Path]) -> int:
    """Bytes that removing the files gives back: none for one that stays under another name."""
    found = [file.stat() for file in files]
    return sum(stat.st_size for stat in found if stat.st_nlink == 1)


def free(stage: Path, by: str) -> Freed | None:
    """Remove the weights of a finished stage, and leave a record; None where there are none to remove.

    Args:
        by: on whose word, for the record.
    """
    files = weights_of(stage)
    if not files:
        return None
    names = {str(file.relative_to(stage)) for file in files} | freed_files(stage)
    freed = Freed(files=tuple(sorted(names)), bytes=room_made(files), at=datetime.now(UTC), by=by)
    write_json(stage / FREED, freed.model_dump(mode="json"))
    flush(stage)  # the record is on the disk before a file is gone from it
    return _remove(stage, freed)


def finish_freeing(run: Path) -> None:
    """Finish what a kill interrupted in a run's folder."""
    for stage, freed in freed_stages(run):
        if not freed.done:
            _remove(stage, freed)


def freed_stages(run: Path) -> Iterator[tuple[Path, Freed]]:
    """The stages of a run of which something was freed, with what."""
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
    """The error of a stage of a run that needs a checkpoint of it which was freed."""
    run = stage.parents[1]
    return FreedError(
        f"{needed_by} needs the weights of {stage.relative_to(run)}, which are gone: {read_freed(stage)}.",
        what_next="Run the same command again with --on-drift rebuild, which makes them again, or begin another run "
        f"with the best policy: --model {run / 'best' / 'policy'}.",
    )


def no_model_error(policy: Path, stage: Path) -> FreedError:
    """The error of a model's folder whose weights were freed."""
    run = stage.parents[1]
    return FreedError(
        f"{policy} has no weights any more: {read_freed(stage)}.",
        what_next=f"Use the best policy of that run, {run / 'best' / 'policy'}, or make it again: delete {stage} and "
        f"run {run.name} again with --keep all.",
    )
