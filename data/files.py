"""Files that are never half written, and their digests."""

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
    """SHA-256 of a file's content. A file whose size and times are unchanged is read once per process."""
    stat = path.stat()
    # A copy can be given the time of the file that it replaces, but no program can choose when the inode changed.
    return _hash_file(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    # Half a surrogate pair, which no UTF-8 has, is written as JSON's own escape, and read back as it was.
    with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def flush(path: Path) -> None:
    """Have a file or folder on the disk, not only on its way there. Some file systems report a full disk only now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
