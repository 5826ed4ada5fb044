"""Training rows as token ids on disk: rendered once, into Arrow, and memory-mapped by every process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, List, Value, disable_progress_bars
from datasets.exceptions import DatasetGenerationError
from trl import pack_dataset

ROWS = ".rows"
LABEL = "label"  # of a pair: the probability that its chosen answer is better
IDS, NUMBERS, NUMBER = List(Value("int32")), List(Value("float32")), Value("float64")


def labels_of(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The labels of a batch of pairs, of shape (pairs,)."""
    return torch.tensor([row[LABEL] for row in rows], dtype=torch.float32)


class KeepsLabels:
    """A mixin for TRL's collators of pairs, before the collator in the bases: their batches have labels, too."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        collator: Any = super()
        return dict(collator.torch_call(examples)) | {LABEL: labels_of(examples)}


def rows_on_disk(
    folder: Path,
    rows: Callable[[], Iterator[dict[str, Any]]],
    features: dict[str, Any],
    main_process_first: Callable[[], AbstractContextManager[Any]],
    pack_to: int | None = None,
) -> Dataset:
    """Write rows below a folder as the first process of this machine, then memory-map them in all.

    Rows that an earlier attempt of the same stage wrote are used again: they are whole or absent.

    Args:
        rows: yields a dictionary of the features for each row.
        main_process_first: context in which the first process is ahead of the others.
        pack_to: pack rows into longer ones of at most so many tokens, as TRL does.

    Raises:
        Exception: what `rows` raises.
    """
    disable_progress_bars()
    if not any(True for _ in rows()):  # Datasets refuses to make a set of no rows
        return Dataset.from_dict({name: [] for name in features}, Features(features))
    with main_process_first():
        try:
            found = Dataset.from_generator(
                rows, Features(features), cache_dir=str(folder / ROWS), fingerprint="-".join(features)
            )
        except DatasetGenerationError as error:
            raise error.__cause__ or error from None
        return pack_dataset(found, pack_to, "bfd") if pack_to else found
