"""Files that are never half written, and their digests."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _hash_file(path: Path, size: int, modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content. A file whose size and time are unchanged is read once per process."""
    stat = path.stat()
    return _hash_file(path, stat.st_size, stat.st_mtime_ns)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that the file is either the old one or the whole new one, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
