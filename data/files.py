"""Atomic writes and file digests."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _hash_file(path: Path, size: int, modified: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content. An unchanged file (same size and times) is read once per process."""
    stat = path.stat()
    # A copy can take over the modification time of the file it replaces, but no program can set the inode change time.
    return _hash_file(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: the file is either the old one or the complete new one, even after a power failure."""
    partial = path.with_name(f".{path.name}.partial")
    # A lone surrogate cannot be encoded in UTF-8; it is written as a JSON escape and read back unchanged.
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def flush(path: Path) -> None:
    """Sync a file or folder to disk. Some file systems report a full disk only now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
