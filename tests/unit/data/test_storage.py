"""Rows on disk: every type comes back as it went, shards in order, files whole or absent."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import storage
from data.rows import Example, Problem, Sample, Score
from data.storage import count_rows, holds, parquet_files, read_rows, write_rows

SAMPLE = Sample("p1", 3, "4+17=21 #### 21", [5, 6, 0], "stop", "policy-1", 2**40, "sampling-1")
MESSAGES = [{"role": "user", "content": "How many?\n\t\0 end"}, {"role": "assistant", "content": "数 🍎"}]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    "rows",
    [
        [Problem("p1", MESSAGES, "21", "4+17=21", "file.jsonl", "train"), Problem("p2", [], None, None, "", "test")],
        [SAMPLE, replace(SAMPLE, index=0, text="", token_ids=[], finish_reason="length")],
        [Score(1.0, "correct", "equal", "21", "p1", 3, "final_answer@1"), Score(None, "timeout"), Score(0.1, "wrong")],
        [Example("p1", 3, MESSAGES, "21", [7, 0], "policy-1", 0.1), Example("p2", 0, MESSAGES, "5", None, "")],
        [Example("p1", 0, MESSAGES, "", [], "policy-1")],
    ],
    ids=["Problem", "Sample", "Score", "Example", "Example without tokens"],
)
def test_rows_come_back_as_they_were_written(tmp_path: Path, rows: list[Any]) -> None:
    path = tmp_path / "rows.parquet"
    assert write_rows(type(rows[0]), path, rows) == len(rows)
    assert list(read_rows(type(rows[0]), path)) == rows


def test_half_a_surrogate_pair_is_spelled_out_wherever_a_row_has_text(tmp_path: Path) -> None:
    rows: list[Any] = [
        Problem("p\ud800", [{"role": "user", "content": "a\udfff"}], "\ud800", None, "\udcff", "train"),
        replace(SAMPLE, text="\ud83d"),
        Score(1.0, "correct", "\ud800", "é\ud800", parts=[{"name": "\ud800", "value": 1.0, "verdict": "correct"}]),
    ]
    for number, row in enumerate(rows):
        write_rows(type(row), tmp_path / f"{number}.parquet", [row])
    problem, sample, score = (next(read_rows(type(row), tmp_path / f"{n}.parquet")) for n, row in enumerate(rows))
    assert problem.id == "p\\ud800" and problem.messages == [{"role": "user", "content": "a\\udfff"}]
    assert (problem.source, problem.reference, problem.response) == ("\\udcff", "\\ud800", None)
    assert sample.text == "\\ud83d"
    assert (score.explanation, score.answer, score.parts[0]["name"]) == ("\\ud800", "é\\ud800", "\\ud800")


@settings(max_examples=50, deadline=None)
@given(text=TEXT, problem=TEXT, ids=st.lists(st.integers(0, 2**31 - 1)), seed=st.integers(-(2**63), 2**63 - 1))
def test_a_sample_of_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory, text: str, problem: str, ids: list[int], seed: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    sample = replace(SAMPLE, text=text, problem_id=problem, token_ids=ids, seed=seed)
    write_rows(Sample, path, [sample])
    assert list(read_rows(Sample, path)) == [sample]


def test_a_folder_is_read_shard_by_shard_in_the_order_of_names(tmp_path: Path) -> None:
    for shard in (2, 0, 1):
        write_rows(Sample, tmp_path / f"{shard:05d}.parquet", [replace(SAMPLE, index=10 * shard + i) for i in (1, 0)])
    (tmp_path / "notes.txt").write_text("no rows")
    assert [row.index for row in read_rows(Sample, tmp_path)] == [1, 0, 11, 10, 21, 20]
    assert [file.name for file in parquet_files(tmp_path)] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert count_rows(tmp_path) == 6


def test_rows_keep_their_order_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ROWS_PER_BATCH", 4)
    path = tmp_path / "rows.parquet"
    assert write_rows(Sample, path, (replace(SAMPLE, index=i) for i in range(11))) == 11
    assert [row.index for row in read_rows(Sample, path)] == list(range(11))
    assert count_rows(path) == 11
    assert pq.ParquetFile(path).num_row_groups == 3


def test_a_file_without_rows_is_a_file_with_a_schema(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    assert write_rows(Sample, path, []) == 0
    assert list(read_rows(Sample, path)) == []
    assert count_rows(path) == 0
    assert pq.read_schema(path).equals(Sample.SCHEMA)


def rows_until_failure(count: int) -> Iterator[Sample]:
    for index in range(count):
        yield replace(SAMPLE, index=index)
    raise RuntimeError("the reward broke")


def test_a_failing_iterator_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ROWS_PER_BATCH", 4)
    with pytest.raises(RuntimeError, match="the reward broke"):
        write_rows(Sample, tmp_path / "rows.parquet", rows_until_failure(10))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        parquet_files(tmp_path)


def test_a_failing_iterator_leaves_the_file_of_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(Sample, path, [SAMPLE])
    with pytest.raises(RuntimeError, match="the reward broke"):
        write_rows(Sample, path, rows_until_failure(10))
    assert list(read_rows(Sample, path)) == [SAMPLE]


def test_what_a_killed_write_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    (tmp_path / ".rows.parquet.partial").write_bytes(b"PAR1 half")
    write_rows(Sample, path, [SAMPLE])
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
    assert count_rows(tmp_path) == 1


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, replace_file = storage.os.fsync, storage.os.replace
    monkeypatch.setattr(storage.os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(storage.os, "replace", lambda *paths: (done.append("replace"), replace_file(*paths)))
    write_rows(Sample, tmp_path / "rows.parquet", [SAMPLE])
    assert done == ["fsync", "replace"]


def test_whether_a_file_holds_exactly_the_expected_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(Sample, path, [SAMPLE, replace(SAMPLE, problem_id="p2")])
    for values, expected in ((["p1", "p2"], True), (["p2", "p1"], False), (["p1"], False), ([], False)):
        assert holds(path, "problem_id", values) is expected
    assert not holds(path, "absent", [])
    assert not holds(tmp_path / "absent.parquet", "problem_id", [])
    path.write_bytes(path.read_bytes()[:-1])
    assert not holds(path, "problem_id", ["p1", "p2"])


def test_reading_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ROWS_PER_BATCH", 4)
    write_rows(Sample, tmp_path / "0.parquet", [SAMPLE])
    (tmp_path / "1.parquet").write_bytes(b"no Parquet")
    rows = read_rows(Sample, tmp_path)
    assert next(rows) == SAMPLE


@pytest.mark.parametrize("name", ["absent.parquet", "absent", "."])
def test_rows_that_are_not_there_are_an_error_that_names_the_place(tmp_path: Path, name: str) -> None:
    for read in (lambda path: next(read_rows(Sample, path)), count_rows):
        with pytest.raises(FileNotFoundError, match=r"No Parquet rows at .*Has the stage that writes them finished\?"):
            read(tmp_path / name)
