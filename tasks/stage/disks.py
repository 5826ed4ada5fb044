"""Disks that take no more."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import RunFailedError
from tasks.stage.environment import cache_folder

# What the system and the libraries say, also in a program's log, when a disk has no room left or cannot be written.
FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")
READ_ONLY = ("Read-only file system", "attempt to write a readonly database")


class DiskError(RunFailedError):
    """A disk takes no more; the message says which, what is free there, and what to do."""


@contextmanager
def explain_disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn an error that a full or read-only disk caused, however it is wrapped, into one that says so.

    Args:
        what: what stops, such as a stage's name.
        folder: where it writes. The disks of the cache, of the temp folder and of shared memory are looked at as well.

    Raises:
        DiskError: for such an error. All others pass.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        chain = list(_chain(error))
        if earlier := next((e for e in chain if isinstance(e, DiskError)), None):
            raise earlier from None  # what failed after it, because of it, explains nothing
        for cause in chain:
            if disk := _disk_behind(str(cause), folder):
                problem, way_on = disk
                raise DiskError(
                    f"{what} stopped: {problem}", f"The error was:\n  {str(cause).strip()}\n", way_on
                ) from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _disk_behind(message: str, folder: Path) -> tuple[str, str] | None:
    """Which disk an error message is about, and what to do; None if it is not about a disk that takes no more."""
    folders = (folder, cache_folder(), Path(tempfile.gettempdir()), Path("/dev/shm"))
    places = [existing_parent(path).resolve() for path in folders]
    again = "run the same command again: what is finished is kept."
    if any(sign in message for sign in FULL):
        disk = _mount(min(places, key=_free_share))
        usage = shutil.disk_usage(disk)
        free = f"{usage.free / 1e9:,.2f} GB of {usage.total / 1e9:,.2f} GB are free"
        return f"a disk is full. The one mounted at {disk} has least left: {free}.", f"Make room there and {again}"
    locked = next((place for place in places if os.statvfs(place).f_flag & os.ST_RDONLY), None)
    if locked and any(sign in message for sign in READ_ONLY):
        return f"{locked} is on a disk that can only be read.", f"See why (dmesg), make it writable and {again}"
    return None


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder or file above it that is there."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _mount(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.is_mount())


def _free_share(path: Path) -> float:
    """How much of a disk is left, of bytes or of files, whichever is less."""
    found = os.statvfs(path)
    pairs = ((found.f_bavail, found.f_blocks), (found.f_favail, found.f_files))
    return min((free / total for free, total in pairs if total), default=1.0)  # some file systems count no files
