"""JSON in whatever shape it comes; what is no row is refused with its place, or left out and counted."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from data.prepare.sources import named_splits
from tests.unit.data.sources.reading import SUMS, line, read, refusal

GOOD = line(1)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.jsonl", json.dumps(SUMS, indent=1)),
        ("array.jsonl", "\ufeff \n" + json.dumps(SUMS)),
        ("array.ndjson", json.dumps(SUMS)),
        ("array.JSON", json.dumps(SUMS, indent=2)),
        ("data.json", json.dumps({"data": SUMS})),
        ("data.json", json.dumps({"version": "1.1", "more": {"a": [1]}, "data": SUMS, "n": 5}, indent=2)),
        ("data.jsonl", json.dumps({"data": SUMS}, indent=4)),
        ("rows.json", json.dumps({"rows": SUMS})),
        ("examples.json", json.dumps({"Examples": SUMS}, indent="\t")),
        ("objects.json", "\n".join(json.dumps(row, indent=2) for row in SUMS)),
        ("objects.jsonl", "".join(json.dumps(row, indent=2) for row in SUMS)),
        ("lines.json", "".join(json.dumps(row) + "\n" for row in SUMS)),
        ("carriage.jsonl", "\r\n".join(json.dumps(row) for row in SUMS)),
    ],
)
def test_rows_are_the_same_whatever_shape_they_are_in(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, newline="")
    found = read(tmp_path / name)
    assert (found.rows, set(found.splits)) == (SUMS, {None})
    assert not named_splits(tmp_path / name)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["wrapped.json", "wrapped.jsonl"])
def test_lists_named_after_splits_are_of_these(tmp_path: Path, name: str, indent: int | None) -> None:
    lists = {"train": SUMS[:3], "dev": SUMS[3:4], "Test": SUMS[4:], "empty": []}
    (tmp_path / name).write_text(json.dumps(lists, indent=indent))
    found = read(tmp_path / name)
    assert found.rows == SUMS
    assert found.splits == ["train"] * 3 + ["validation", "test"]
    assert found.counts == {f"{name}, train": 3, f"{name}, validation": 1, f"{name}, test": 1}
    assert named_splits(tmp_path / name) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    "columns",
    [
        {"question": {"0": "a", "1": "b"}, "answer": {"0": "1", "1": "2"}},
        {"question": ["a", "b"], "answer": [1, 2]},
    ],
)
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_file_of_columns_is_refused(tmp_path: Path, name: str, columns: dict[str, Any]) -> None:
    (tmp_path / name).write_text(json.dumps(columns))
    assert "a column under each name, not rows. Write one object for each row" in refusal(tmp_path / name)


def test_a_list_that_is_not_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"train": SUMS, "hard": SUMS[:2]}))
    found = read(tmp_path / "a.json")
    assert found.rows == SUMS
    assert found.skipped["a.json, 'hard'"].startswith("it is named neither after a split nor data")


@pytest.mark.parametrize(
    "row",
    [
        {"id": "0", "data": ["Hi?", "Hello."]},  # UltraChat
        {"messages": [{"role": "user", "content": "Hi?"}]},
        {"id": "seed", "instances": [{"input": "", "output": "b"}]},
        {"question": "?", "test_list": [{"a": 1}]},
        {"chosen": [{"role": "user", "content": "a"}] * 2, "rejected": [{"role": "user", "content": "a"}] * 2},
        {"inputs": ["1", "2"], "question": "?"},
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_row_that_has_a_list_is_still_a_row(tmp_path: Path, row: dict[str, Any], count: int) -> None:
    (tmp_path / "a.json").write_text((json.dumps(row) + "\n") * count)
    assert read(tmp_path / "a.json").rows == [row] * count


@pytest.mark.parametrize(
    ("bad", "reason", "says"),
    [
        (b'{"question": "What is 8? \\ud83d", "answer": "11"}', "half a surrogate pair", "half a surrogate pair"),
        (b'{"question": "?", "answer": "\\uDE00"}', "half a surrogate pair", "half a surrogate pair"),
        (b'{"question": "?", "answer": "2", "notes": ["\\udfff"]}', "half a surrogate pair", "half a surrogate pair"),
        (b'{"question": "What is 2?", "ans', "malformed JSON", "malformed JSON ("),
        (b'{"question": "What is 2?", "answer": ', "malformed JSON", "malformed JSON (Expecting value"),
        (b"{", "malformed JSON", "malformed JSON"),
        (b"<html>502 Bad Gateway</html>", "malformed JSON", "malformed JSON"),
        (b'{"question": "a", "question": "b"}', "repeated key", "the key 'question' appears twice"),
        (b'["What is 2?", "2"]', "not an object", "list is not a JSON object"),
        (b'"What is 2?"', "not an object", "str is not a JSON object"),
        (b"null", "not an object", "NoneType is not a JSON object"),
        (b'{"question": "Caf\xe9?", "answer": "2"}', "not UTF-8", "not UTF-8"),
        (b"\xff\xfe{", "not UTF-8", "not UTF-8"),
        (b"[" * 100_000, "malformed JSON", "malformed JSON"),
        (b'{"question": ' + b"9" * 5000 + b"}", "malformed JSON", "malformed JSON"),
    ],
)
@pytest.mark.parametrize("ends", [b"", b"\n", b"\n" + GOOD.encode()])
def test_a_line_that_is_no_row_is_refused_or_left_out(
    tmp_path: Path, bad: bytes, reason: str, says: str, ends: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD.encode() + bad + ends)
    refused = refusal(path)
    for words in (f"{path}, line 2: ", says, "unusable: drop"):
        assert words in refused
    found = read(path, drop=True)
    assert found.dropped == [reason]
    assert len(found.rows) == 1 + (ends > b"\n")


def test_the_first_line_may_be_the_one_that_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "cut\n' + GOOD)
    assert (read(path, drop=True).dropped, len(read(path, drop=True).rows)) == (["malformed JSON"], 1)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ('{"question": "\\ud83d"}', "half a surrogate pair"),
        ('{"question": {"a": 1, "a": 2}}', "repeated key"),
        ("3", "not an object"),
    ],
)
@pytest.mark.parametrize("whole", ["[{good}, {item}, {good}]", '{{"train": [{good}, {item}, {good}]}}'])
def test_an_item_that_is_no_row_is_left_out(tmp_path: Path, item: str, reason: str, whole: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(whole.format(good=GOOD.strip(), item=item))
    assert f"{path}, row 2" in refusal(path)
    found = read(path, drop=True)
    assert (found.dropped, len(found.rows)) == ([reason], 2)


@pytest.mark.parametrize("rest", [', {"question": "cut o', ', {"question": ', ",", ""])
def test_an_array_that_was_cut_off_loses_its_last_row_alone(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + GOOD.strip() + rest)
    assert "row 2: malformed JSON" in refusal(path)
    found = read(path, drop=True)
    assert (found.dropped, len(found.rows)) == (["malformed JSON"], 1)


def test_an_array_that_is_broken_in_the_middle_is_refused_whatever_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + GOOD.strip() + ", {oops}, " + GOOD.strip() + "]")
    assert "row 2: malformed JSON" in refusal(path, drop=True)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_refuses_no_row_by_itself(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(GOOD.replace("}", f', "score": {value}}}'))
    (row,) = read(path).rows
    assert row["answer"] == "1"
    assert not math.isfinite(row["score"])
