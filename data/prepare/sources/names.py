"""The split that a name says: of a file, of a folder, or of a key in JSON."""

import re
from collections.abc import Collection
from pathlib import PurePath

from data.rows import Split

HELD_OUT: tuple[Split, ...] = ("validation", "test")
# As `datasets` has them, and some more. A name that says several is held out: what is left out by mistake is seen.
WORDS: dict[Split, str] = {
    "test": "test|testing|testset|devtest|eval|evaluation|holdout|heldout",
    "validation": "validation|valid|val|dev|validset|valset|devset",
    "train": "train|training|trainset",
}
_NAMES: dict[Split, re.Pattern[str]] = {
    split: re.compile(rf"(?<![^\W\d_])({words})(?![^\W\d_])", re.IGNORECASE) for split, words in WORDS.items()
}


def split_named(name: str) -> Split | None:
    """The split whose name stands in a name, between signs that are no letters."""
    return next((split for split, pattern in _NAMES.items() if pattern.search(name)), None)


def split_of_path(path: PurePath) -> Split | None:
    """The split that a file's name says, or else the nearest of its folders."""
    stem = path.name.partition(".")[0] or path.name
    found = (split_named(part) for part in (stem, path.name, *reversed(path.parts[:-1])))
    return next((split for split in found if split), None)


def split_called(name: str) -> Split | None:
    """The split of which a name is the whole name."""
    return next((split for split, pattern in _NAMES.items() if pattern.fullmatch(name)), None)


def serving(
    split: Split | None, named: Collection[Split], given: Collection[Split] = ()
) -> frozenset[Split | None] | None:
    """Which of a data set's files, by the split that they are named after, are read where it is to serve as a set.

    Args:
        split: that set: `train`, of which unnamed files are; a held-out one, for which those of its name are read, or
            else those of another held-out one, or else all; None: all sets.
        named: the splits after which files are named.
        given: the sets for which there is another data set. It replaces the files of that name.

    Returns:
        Their splits, None among them for files of no split; None if all are read.
    """
    if split is None:
        return frozenset((None, "train", *HELD_OUT)) - {*given} if {*given} & {*named} else None
    if split == "train":
        return frozenset((None, "train")) if {*named} & {*HELD_OUT} else None
    found = next((name for name in (split, *reversed(HELD_OUT)) if name in named), None)
    return frozenset((found,)) if found else None
