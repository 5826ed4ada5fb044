"""Disks that are full or read-only."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.errors import RunFailedError
from tasks.stage.environment import cache_folder

# Messages of the system and the libraries, also in a program's log, if a disk is full or cannot be written.
FULL = ("No space left on device", "database or disk is full", "Disk quota exceeded")
READ_ONLY = ("Read-only file system", "attempt to write a readonly database")


class DiskError(RunFailedError):
    """A disk is full or read-only; the message says which, how much is free, and what to do."""


@contextmanager
def explain_disk_errors(what: str, folder: Path) -> Iterator[None]:
    """Turn an error caused by a full or read-only disk, however it is wrapped, into a `DiskError`.

    Args:
        what: what stops, such as a stage's name.
        folder: where it writes. The disks of the cache, the temp folder and shared memory are checked as well.

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
            raise earlier from None  # errors that followed from it explain nothing
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
    """Return which disk an error message is about, and what to do; None if it is not about a full or read-only disk."""
    folders = (folder, cache_folder(), Path(tempfile.gettempdir()), Path("/dev/shm"))
    places = [existing_parent(path).resolve() for path in folders]
    again = "run the same command again: finished work is kept."
    if any(sign in message for sign in FULL):
        disk = _mount(min(places, key=_free_share))
        usage = shutil.disk_usage(disk)
        free = f"{usage.free / 1e9:,.2f} GB of {usage.total / 1e9:,.2f} GB are free"
        return (
            f"a disk is full. The one mounted at {disk} has the least space: {free}.",
            f"Free some space there and {again}",
        )
    locked = next((place for place in places if os.statvfs(place).f_flag & os.ST_RDONLY), None)
    if locked and any(sign in message for sign in READ_ONLY):
        return f"{locked} is on a read-only disk.", f"Find out why (dmesg), make it writable and {again}"
    return None


def existing_parent(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def _mount(path: Path) -> Path:
    return next(p for p in (path, *path.parents) if p.is_mount())


def _free_share(path: Path) -> float:
    """Free share of a disk, in bytes or in files, whichever is less."""
    found = os.statvfs(path)
    pairs = ((found.f_bavail, found.f_blocks), (found.f_favail, found.f_files))
    return min((free / total for free, total in pairs if total), default=1.0)  # some file systems count no files
