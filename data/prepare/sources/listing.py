"""The files of a data set, the neighboring files that are skipped, and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.prepare.sources.errors import DataFileError
from data.prepare.sources.registry import Layout
from data.rows import Split

SHOWN = 20  # names


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        split: the split given by its name or its folder.
        layout: how its rows are laid out, if a registry says so.
    """

    path: Path
    split: Split | None = None
    layout: Layout | None = None


@dataclass
class Listing:
    """The files of a data set.

    Attributes:
        files: in the order in which they are read.
        skipped: files and folders that are not read, and why.
        told_by: files that define how the others are read.
    """

    files: list[DataFile]
    skipped: dict[str, str] = field(default_factory=dict)
    told_by: list[Path] = field(default_factory=list)

    def only(self, wanted: Iterable[DataFile], why: str) -> "Listing":
        """The listing with these files alone; the others are skipped."""
        kept = list(wanted)
        paths = {file.path for file in kept}
        left = {str(file.path): why for file in self.files if file.path not in paths}
        return Listing(kept, self.skipped | left, self.told_by)

    def of_split(self, name: str, split: Split | None, source: Path) -> "Listing":
        """The files of a split that was requested by name, as rows without a split.

        Raises:
            DataFileError: there are none.
        """
        found = [replace(file, split=None) for file in self.files if split and file.split == split]
        if not found:
            there = sorted({file.split for file in self.files if file.split})
            raise DataFileError(
                f"{source} has no {name!r}.",
                f"Its files are named after {', '.join(there)}." if there else "None of its files names a split.",
                "Choose one of those, or name a file.",
            )
        return self.only(found, f"it is not of {name}, which was chosen")


def choose(folder: Path, kind: str, names: Iterable[str]) -> DataFileError:
    """The error for a folder of several items, one of which must be chosen."""
    known = sorted(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return DataFileError(
        f"The folder {folder} holds {len(known)} {kind}: {', '.join(known[:SHOWN])}{more}.",
        what_next=f"Choose one, as in {folder}:{known[0]}.",
    )
