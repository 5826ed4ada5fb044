"""Rows are the same whatever file they are in; a file that is broken is refused with the place."""

import gzip
import io
import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.prepare.reading import Reading, Tally, read_records
from data.prepare.sources import DataFileError, hub_name, json_values, located_rows
from data.prepare.sources.json_values import Values
from tests.unit.reading import read_pairs

ROWS = [{"question": f"{n} + 1?", "answer": f"é 你 {n + 1}"} for n in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
ENDINGS = [".json", ".jsonl", ".csv", ".tsv", ".jsonl.gz", ".json.zst", ".zip", ".parquet", ".arrow"]
TABLE = "question,answer\n" + "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in ROWS)


def rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row, _ in located_rows(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", "\ufeff\n" + LINES),
        ("a.json", json.dumps(ROWS)),
        ("a.json", LINES),
        ("a.csv", TABLE),
        ("a.csv", "\ufeff" + TABLE.replace("\n", "\r\n")),
        ("a.tsv", TABLE.replace(",", "\t")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_text_files(tmp_path: Path, name: str, content: str, packed: bool) -> None:
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    assert rows(path) == ROWS
    assert next(located_rows(path))[0].startswith(f"{path}, ")


def test_parquet_arrow_a_saved_data_set_and_a_folder(tmp_path: Path) -> None:
    made = datasets.Dataset.from_list(ROWS)
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(str(tmp_path / "saved"))
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    folder = tmp_path / "folder" / "deeper"
    folder.mkdir(parents=True)
    (folder / "b.jsonl").write_text(LINES)
    (folder.parent / "a.jsonl").write_text(LINES)
    (folder / "README.md").write_text("# not data")
    assert rows(tmp_path / "a.parquet") == rows(arrow) == rows(tmp_path / "saved") == ROWS
    assert rows(tmp_path / "folder") == [*ROWS, *ROWS]


@given(
    items=st.lists(
        st.dictionaries(st.text(max_size=3), st.none() | st.text() | st.integers() | st.lists(st.floats(0, 1)))
    ),
    block=st.integers(1, 9),
    indent=st.none() | st.integers(0, 2),
)
def test_an_array_is_read_block_by_block_as_if_whole(items: list[Any], block: int, indent: int | None) -> None:
    text = json.dumps(items, indent=indent, ensure_ascii=block % 2 == 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "BLOCK", block)
        values = Values(io.StringIO(text))
        values.enter()
        assert [values.value() for _ in iter(lambda: values.another("]"), False)] == items
        values.require_end()


@given(st.binary(max_size=200), st.sampled_from(ENDINGS))
def test_no_bytes_end_in_anything_but_rows_or_a_message(tmp_path_factory: Any, content: bytes, suffix: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    path.write_bytes(content)
    with suppress(DataFileError):
        for _ in read_records(Reading(path, drop=True), "problems", Tally()):
            pass


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"a": 1, "a": 2}', "line 1: malformed JSON (the key 'a' appears twice)"),
        ("a.json", b'[{"a": {"b": 1, "b": 2}}]', "row 1: malformed JSON (the key 'b' appears twice)"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "row 2: malformed JSON"),
        ("a.json", b'[{"a": 1}, {"a": "', "row 2: malformed JSON"),
        ("a.csv", b"a,b\n1,2\n3\n", "line 3: not as many fields as the header has columns (2)"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2: not as many fields"),
        ("a.csv", b'a,b\n"1,2\n', "malformed CSV"),
        ("a.csv", b"a,b\n\xff,2\n", "not UTF-8"),
        ("a.jsonl.gz", b"\x1f\x8b{}", "broken gzip"),
        ("a.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-9], "broken gzip"),
        ("a.parquet", b"PAR1", "not a readable parquet file"),
    ],
)
def test_a_broken_file_is_refused_naming_the_place(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataFileError) as refused:
        rows(path)
    assert says in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no data")
    with pytest.raises(DataFileError, match=r"holds no data file\. notes\.txt: .* Known types are \.json"):
        rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("openai/gsm8k", ("openai/gsm8k", None, "train")),
        ("openai/gsm8k:test", ("openai/gsm8k", None, "test")),
        ("openai/gsm8k:main:test", ("openai/gsm8k", "main", "test")),
        ("data/problems.jsonl", None),
        ("data/problems.json.gz", None),
        ("/data/gsm8k", None),
        ("a/b/c", None),
        ("gsm8k", None),
    ],
)
def test_a_name_of_the_hub_is_told_from_a_file(name: str, found: Any) -> None:
    assert hub_name(Path(name)) == found


def test_a_mapped_column_a_named_format_and_a_counted_drop(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"Frage": "1 + 1?", "answer": "2"}\n{"Frage": "", "answer": "2"}\n')
    tally = Tally()
    read = list(read_records(Reading(path, columns={"question": "Frage"}, drop=True), "problems", tally))
    assert [record.messages[0]["content"] for _, record in read] == ["1 + 1?"]
    assert (tally.rows, dict(tally.dropped)) == (2, {"empty question": 1})
    assert tally.first["empty question"].startswith(f"{path}, line 2: no 'question'")
    with pytest.raises(DataFileError, match=r"line 1: no 'instruction'"):
        list(read_records(Reading(path, format="alpaca"), "problems", Tally()))


def test_a_use_that_a_format_cannot_serve_is_refused_with_what_it_can(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"turns": ["Hi?"]}\n')
    with pytest.raises(DataFileError, match=r"mt-bench.*It can serve as prompts, not as demonstrations"):
        list(read_records(Reading(path), "demonstrations", Tally()))


def test_rows_that_teach_nothing_are_left_out_and_counted_without_being_asked(tmp_path: Path) -> None:
    row = {"history": "Hi?", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row | {"score_ratio": ratio}) + "\n" for ratio in (3.0, 1.1)))
    found = read_pairs(path)
    assert (len(found.pairs), found.rows, found.dropped) == (1, 2, {"scores too near": 1})
    path.write_text(json.dumps(row | {"score_ratio": 1.1}))
    with pytest.raises(DataFileError, match=r"1 row read, and none is a pair to learn from \(1 scores too near\)"):
        read_pairs(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_a_row_without_bounds_is_refused_before_memory_is(tmp_path: Path, name: str) -> None:
    """Some kilobytes of gzip may hold as much as they like."""
    path = tmp_path / name
    begins = {"a.jsonl.gz": b'{"question": "', "a.json.gz": b'[{"question": "', "a.csv.gz": b'question,answer\n"'}[name]
    with gzip.open(path, "wb") as file:
        file.write(begins)
        for _ in range(4):
            file.write(b"x" * 10_000_000)
    tracemalloc.start()
    with pytest.raises(DataFileError, match=r"16,777,216"):
        list(read_records(Reading(path), "problems", Tally()))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 300_000_000
