"""Training rows on disk: whole or absent, used again, packed, none at all."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from models.training.rows import IDS, NUMBERS, rows_on_disk

FEATURES = {"input_ids": IDS, "weights": NUMBERS}


class Rows:
    """Rows that count how often they are rendered."""

    def __init__(self, count: int, broken: bool = False) -> None:
        self.count, self.broken, self.rendered = count, broken, 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.count):
            self.rendered += 1
            yield {"input_ids": [number, -100, 7], "weights": [0.5] * 3}
        if self.broken:
            raise ValueError("the last row is too long")


def test_rows_are_rendered_once_and_mapped_from_files(tmp_path: Path) -> None:
    rows = Rows(2500)
    first, again = (rows_on_disk(tmp_path, rows, FEATURES, nullcontext) for _ in range(2))
    assert first[2499] == again[2499] == {"input_ids": [2499, -100, 7], "weights": [0.5] * 3}
    assert rows.rendered == 2500 + 2  # each time, the first is looked at
    assert all(Path(file["filename"]).is_relative_to(tmp_path) for file in first.cache_files)


def test_an_error_in_the_middle_is_told_and_leaves_nothing_to_use_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the last row is too long"):
        rows_on_disk(tmp_path, Rows(1500, broken=True), FEATURES, nullcontext)
    assert len(rows_on_disk(tmp_path, Rows(3), FEATURES, nullcontext)) == 3


def test_no_rows_at_all(tmp_path: Path) -> None:
    found = rows_on_disk(tmp_path, Rows(0), FEATURES, nullcontext)
    assert len(found) == 0 and found.column_names == list(FEATURES)


def test_packed_rows_are_filled_and_say_where_each_begins(tmp_path: Path) -> None:
    found = rows_on_disk(tmp_path, Rows(5), FEATURES, nullcontext, pack_to=7)
    assert sorted(row["seq_lengths"] for row in found) == [[3], [3, 3], [3, 3]]
