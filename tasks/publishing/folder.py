"""The folder that is published: files of the run, which are not copied, and the model card."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from data.errors import UsageError
from tasks.publishing.base import CARD
from tasks.publishing.policy import Published
from tasks.stage.disks import existing_parent, explain_disk_errors


@contextmanager
def assembled(published: Published, card: str) -> Iterator[Path]:
    """Yield a folder, for as long as it is needed, that has the files as links and the model card."""
    with TemporaryDirectory() as outer:
        folder = Path(outer, "published")  # the outer one may only be read by its owner
        folder.mkdir()
        for name, content in published.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                file.symlink_to(content.resolve())
        (folder / CARD).write_text(card, encoding="utf-8")
        yield folder


def require_empty(target: Path) -> None:
    """Check that a folder can be written without touching anything that is there.

    Raises:
        UsageError: it has something in it, or is no folder.
    """
    there = existing_parent(target)
    if not there.is_dir():
        raise UsageError(f"{target} cannot be a folder: {there} is a file.", what_next="Name another folder with --to.")
    if there == target and any(target.iterdir()):
        raise UsageError(
            f"The folder {target} already has something in it.",
            "Nothing in it was changed.",
            "Name a new folder with --to, or empty that one first.",
        )


def write_folder(source: Path, target: Path) -> None:
    """Copy a folder, following its links. The target appears complete or, if that fails, not at all.

    Raises:
        DiskError: the disk is full or read-only.
    """
    target = target.resolve()
    partial = target.with_name(f".{target.name}.partial")
    with explain_disk_errors(f"publish --to {target}", existing_parent(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(source, partial, copy_function=shutil.copyfile)
            os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
