"""The split given by a name: of a file, a folder, or a key in JSON."""

import re
from collections.abc import Collection
from pathlib import PurePath

from data.rows import Split

HELD_OUT: tuple[Split, ...] = ("validation", "test")
# Those of `datasets` and a few more. A name with several is held out: a row that training lacks by mistake is noticed.
WORDS: dict[Split, str] = {
    "test": "test|testing|testset|devtest|eval|evaluation|holdout|heldout",
    "validation": "validation|valid|val|dev|validset|valset|devset",
    "train": "train|training|trainset",
}
_NAMES: dict[Split, re.Pattern[str]] = {
    split: re.compile(rf"(?<![^\W\d_])({words})(?![^\W\d_])", re.IGNORECASE) for split, words in WORDS.items()
}


def split_named(name: str) -> Split | None:
    """The split whose name occurs in a name, delimited by non-letters."""
    return next((split for split, pattern in _NAMES.items() if pattern.search(name)), None)


def split_of_path(path: PurePath) -> Split | None:
    """The split given by a file's name, or else by the nearest of its folders."""
    stem = path.name.partition(".")[0] or path.name
    found = (split_named(part) for part in (stem, path.name, *reversed(path.parts[:-1])))
    return next((split for split in found if split), None)


def split_called(name: str) -> Split | None:
    """The split that this is exactly a name of."""
    return next((split for split, pattern in _NAMES.items() if pattern.fullmatch(name)), None)


def holds_name(path: PurePath, name: str) -> bool:
    """Whether a name occurs in a file's path, delimited by neither letters nor digits."""
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", str(path), re.IGNORECASE) is not None


def serving(
    split: Split | None, named: Collection[Split], given: Collection[Split] = ()
) -> frozenset[Split | None] | None:
    """Which of a data set's files are read if it serves as a split, by the split that they are named after.

    Args:
        split: the split it serves as: `train` includes unnamed files; a held-out one reads the files of its name, else
            those of another held-out split, else all; None: all splits.
        named: the splits that files are named after.
        given: the splits for which there is another data set. It replaces the files of that name.

    Returns:
        Their splits, with None for files without a split; None if all are read.
    """
    if split is None:
        return frozenset((None, "train", *HELD_OUT)) - {*given} if {*given} & {*named} else None
    if split == "train":
        return frozenset((None, "train")) if {*named} & {*HELD_OUT} else None
    found = next((name for name in (split, *reversed(HELD_OUT)) if name in named), None)
    return frozenset((found,)) if found else None
