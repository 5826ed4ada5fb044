"""Digests that are never those of an earlier content, and disks that take no more, named in plain words."""

import errno
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from data.files import file_sha256
from tasks.stage import disks as files
from tasks.stage.disks import DiskError, existing_parent, explain_disk_errors


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for content in (b"first", b"other"):
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        assert file_sha256(path) == sha256(content).hexdigest()
        time.sleep(0.02)  # the kernel's clock for files ticks every few milliseconds


def test_a_file_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"first")
    digest = file_sha256(path)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the file was read again"))
    assert file_sha256(path) == digest


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A folder for each place that a run writes to."""
    found = {name: tmp_path / name for name in ("run", "cache", "temp")}
    for folder in found.values():
        folder.mkdir()
    monkeypatch.setattr(files, "cache_folder", lambda: found["cache"])
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(found["temp"]))
    return found


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Mounts a small disk on a folder."""
    done = []

    def mount(folder: Path, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            pytest.skip(f"not tested, since nothing may be mounted here: {made.stderr.strip()}")
        done.append(folder)

    yield mount
    for folder in done:
        subprocess.run(["umount", folder], check=True)


def explained(error: Exception, folder: Path) -> str:
    with pytest.raises(DiskError) as found, explain_disk_errors("iter-1/score", folder):
        raise error
    return str(found.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.parquet"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("models.training.supervised failed. Its log:\n  I/O error: No space left on device (os error 28)"),
    ],
    ids=["disk", "quota", "SQLite", "a program's log"],
)
def test_a_full_disk_is_named_with_what_is_free_what_to_do_and_the_error(
    places: dict[str, Path], error: Exception
) -> None:
    said = explained(error, places["run"])
    assert said.startswith("iter-1/score stopped: a disk is full. The one mounted at /")
    for words in (
        "GB are free",
        "Free some space there and run the same command again",
        "finished work is kept",
        str(error),
    ):
        assert words in said


@pytest.mark.parametrize("full", ["run", "cache", "temp"])
def test_of_all_disks_that_a_run_writes_to_the_fullest_is_named(
    places: dict[str, Path], mounted: Callable[..., None], full: str
) -> None:
    mounted(places[full], "size=1m")
    (places[full] / "ballast").write_bytes(bytes(1 << 20))
    said = explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), places["run"] / "iter-1" / "score")
    assert f"The one mounted at {places[full]} has the least space: 0.00 GB of 0.00 GB are free." in said


def test_a_disk_without_room_for_another_file_is_full_too(
    places: dict[str, Path], mounted: Callable[..., None]
) -> None:
    mounted(places["cache"], "size=64m,nr_inodes=2")
    (places["cache"] / "last").touch()
    said = explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), places["run"])
    assert f"The one mounted at {places['cache']} has the least space" in said


def test_a_read_only_disk_is_named_only_if_there_is_one(places: dict[str, Path], mounted: Callable[..., None]) -> None:
    error = OSError(errno.EROFS, os.strerror(errno.EROFS), "elsewhere")
    with pytest.raises(OSError, match="elsewhere"), explain_disk_errors("iter-1/score", places["run"]):
        raise error
    mounted(places["run"], "ro")
    said = explained(error, places["run"])
    assert f"iter-1/score stopped: {places['run']} is on a read-only disk" in said
    assert "make it writable and run the same command again" in said


def test_other_errors_pass_as_they_are(places: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="a bad value"), explain_disk_errors("iter-1/score", places["run"]):
        raise ValueError("a bad value")


def test_an_error_that_wraps_another_is_looked_into(places: dict[str, Path]) -> None:
    error = RuntimeError("the history cannot be written")
    error.__cause__ = sqlite3.OperationalError("database or disk is full")
    assert "a disk is full" in explained(error, places["run"])


def test_what_fails_because_of_a_full_disk_does_not_hide_where_it_became_full(places: dict[str, Path]) -> None:
    error = sqlite3.OperationalError("database or disk is full")
    error.__context__ = DiskError("base stopped: the disk is full")
    assert explained(error, places["run"]) == "base stopped: the disk is full"


def test_the_nearest_thing_that_exists(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for path, there in (("a/b", "."), ("file/b", "file"), ("dangling/b", "dangling"), ("file", "file")):
        assert existing_parent(tmp_path / path) == tmp_path / there
