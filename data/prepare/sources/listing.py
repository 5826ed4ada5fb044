"""The files of a data set, the neighboring files that are skipped, and why."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.prepare.sources.errors import DataFileError
from data.prepare.sources.names import holds_name, split_called
from data.prepare.sources.registry import Layout
from data.rows import Split

SHOWN = 20  # names


@dataclass(frozen=True)
class DataFile:
    """A file of rows.

    Attributes:
        split: the split given by its name or its folder.
        layout: how its rows are laid out, if a registry says so.
        called: the data set's own name of its split, such as `train_sft`, if it says so.
    """

    path: Path
    split: Split | None = None
    layout: Layout | None = None
    called: str | None = None


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

        A longer name, such as `train_sft`, is one of the data set's own splits, or is in the files' names.

        Raises:
            DataFileError: there are none, or it stands for several of the data set's own.
        """
        there = sorted({file.called or file.split for file in self.files if file.split})
        files = [file for file in self.files if file.called == name]
        files = files or [file for file in self.files if split and file.split == split]
        if split_called(name) is None and name not in there:
            files = [file for file in files if holds_name(file.path.relative_to(source), name)]
        refuse_several(files, str(source))
        found = [replace(file, split=None) for file in files]
        if not found:
            raise DataFileError(
                f"{source} has no {name!r}.",
                f"Its files are named after {', '.join(there)}." if there else "None of its files names a split.",
                "Choose one of those, or name a file.",
            )
        return self.only(found, f"it is not of {name}, which was chosen")


def refuse_several(files: Iterable[DataFile], source: str) -> None:
    """Refuse to train on several splits of a data set at once, such as `train_sft` and `train_gen`.

    Raises:
        DataFileError: it has several.
    """
    names = sorted({file.called for file in files if file.called and file.split == "train"})
    if len(names) > 1:
        raise DataFileError(
            f"{source} holds {len(names)} splits for training: {', '.join(names)}.",
            "They often hold the same prompts.",
            f"Choose one, as in {source}:{names[0]}, and the held-out ones in the same way.",
        )


def choose(folder: Path, kind: str, names: Iterable[str]) -> DataFileError:
    """The error for a folder of several items, one of which must be chosen."""
    known = sorted(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return DataFileError(
        f"The folder {folder} holds {len(known)} {kind}: {', '.join(known[:SHOWN])}{more}.",
        what_next=f"Choose one, as in {folder}:{known[0]}.",
    )
