"""PPO-ptx: rows of other data, update after update, on one process or several."""

from pathlib import Path

import pytest
import torch

from data.rows import Example
from data.storage import write_rows
from models.training.mix import Mix


def alone(numbers: torch.Tensor) -> list[float]:
    return numbers.tolist()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [Example(str(n), 0, [], "", [n, 100 + n, 200 + n][: 2 + n % 2], "") for n in range(5)]
    write_rows(Example, tmp_path / "mix.parquet", rows)
    return tmp_path / "mix.parquet"


def test_every_pass_takes_every_row_once_in_another_order(file: Path) -> None:
    mix = Mix(file, None, seed=3, rows=4, place=(0, 1))
    first = [row.prompt[0] for number in range(5) for row in mix.of_update(number, 1.0, alone)]
    passes = [first[begin : begin + 5] for begin in range(0, 20, 5)]
    assert all(sorted(one) == list(range(5)) for one in passes) and len(set(map(tuple, passes))) > 1
    again = [row.prompt[0] for row in Mix(file, None, seed=3, rows=4, place=(0, 1)).of_update(2, 1.0, alone)]
    assert again == first[8:12]  # it depends on the update's number alone


def test_processes_share_the_rows_of_an_update(file: Path) -> None:
    whole = [row.prompt[0] for row in Mix(file, None, 3, 4, (0, 1)).of_update(1, 1.0, alone)]
    parts = [[row.prompt[0] for row in Mix(file, None, 3, 4, (i, 2)).of_update(1, 1.0, alone)] for i in range(2)]
    assert [parts[0][0], parts[1][0], parts[0][1], parts[1][1]] == whole


def test_the_first_token_of_a_text_is_given_and_all_others_weigh_the_same(file: Path) -> None:
    rows = Mix(file, None, 3, 5, (0, 1)).of_update(0, 14.0, alone)
    assert sorted(row.tokens[0] - row.prompt[0] for row in rows) == [100] * 5
    assert torch.cat([row.mixed for row in rows]).tolist() == [2.0] * 7  # 14 tokens of answers, 7 of texts
    for row in rows:  # nothing else to learn
        assert not torch.cat([row.old, row.advantages, row.values, row.returns, row.learned]).any()
