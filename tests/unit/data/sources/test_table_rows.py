"""Parquet and Arrow hold the values that were meant."""

import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.sources.reading import read, refusal

TURNS = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
LEGACY = (
    b'{"info": {"features": {"messages": {"feature": {"role": {"dtype": "string", "_type": "Value"}, '
    b'"content": {"dtype": "string", "_type": "Value"}}, "_type": "Sequence"}}}}'
)
OPTIONS = b'{"info": {"features": {"options": {"feature": {"a": {}, "b": {}}, "_type": "Sequence"}}}}'


def tables(folder: Path, table: pa.Table) -> list[Path]:
    """A table in every kind of file."""
    files = [folder / name for name in ("a.parquet", "stream.arrow", "file.arrow", "A.FEATHER")]
    pq.write_table(table, files[0])
    for file, new in zip(files[1:], (pa.ipc.new_stream, pa.ipc.new_file, pa.ipc.new_file), strict=True):
        with new(str(file), table.schema) as writer:
            writer.write_table(table)
    return files


@pytest.mark.parametrize(
    ("kind", "values", "meant"),
    [
        (
            pa.float32(),
            [0.1, 2.3, 1 / 3, 1e10, 16777216.0, -0.5, None],
            [0.1, 2.3, 0.33333334, 1e10, 16777216.0, -0.5, None],
        ),
        (pa.float16(), [0.1, 2.5], [0.1, 2.5]),
        (pa.float64(), [0.1, 1 / 3, 1e300], [0.1, 1 / 3, 1e300]),
        (pa.list_(pa.float32()), [[0.1, None], []], [[0.1, None], []]),
        (pa.struct([("x", pa.float32())]), [{"x": 0.1}, None], [{"x": 0.1}, None]),
        (pa.int64(), [2**53 + 1, -3], [2**53 + 1, -3]),
        (pa.uint8(), [255], [255]),
        (pa.decimal128(10, 2), [Decimal("2.50"), None], [Decimal("2.50"), None]),
        (pa.bool_(), [True, False], [True, False]),
        (pa.list_(pa.string()), [["2"], []], [["2"], []]),
        (pa.large_string(), ["é 你"], ["é 你"]),
        (pa.dictionary(pa.int8(), pa.string()), ["cat", "dog", "cat"], ["cat", "dog", "cat"]),
        (
            pa.struct([("inputs", pa.list_(pa.string())), ("outputs", pa.list_(pa.string()))]),
            [{"inputs": ["1", "2"], "outputs": ["3"]}],
            [{"inputs": ["1", "2"], "outputs": ["3"]}],
        ),
    ],
)
def test_values(tmp_path: Path, kind: pa.DataType, values: list[Any], meant: list[Any]) -> None:
    array = (
        pa.array(values, pa.string()).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)
    )
    for file in tables(tmp_path, pa.table({"question": ["?"] * len(values), "answer": array})):
        found = [row["answer"] for row in read(file).rows]
        assert (found, [type(value) for value in found]) == (meant, [type(value) for value in meant])


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_what_is_no_number_stays_one(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"answer": pa.array([math.nan, math.inf, -math.inf], kind)})
    nan, more, less = (row["answer"] for row in read(tables(tmp_path, table)[0]).rows)
    assert math.isnan(nan)
    assert (more, less) == (math.inf, -math.inf)


def test_a_label_is_its_name(tmp_path: Path) -> None:
    label = datasets.ClassLabel(names=["no", "yes"])
    features = {"question": datasets.Value("string"), "answer": label, "all": datasets.List(label), "of": {"x": label}}
    rows = {"question": [*"abcd"], "answer": [1, 0, None, -1], "all": [[0, 1], [], [1], []], "of": [{"x": 1}] * 4}
    made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    made.to_parquet(tmp_path / "a.parquet")
    made.save_to_disk(str(tmp_path / "saved"))
    for path in (tmp_path / "a.parquet", tmp_path / "saved"):
        found = read(path).rows
        assert [row["answer"] for row in found] == ["yes", "no", None, None]
        assert [row["all"] for row in found] == [["no", "yes"], [], ["yes"], []]
        assert found[0]["of"] == {"x": "yes"}


@pytest.mark.parametrize(
    ("told", "column", "value", "meant"),
    [
        (LEGACY, "messages", {"role": ["user", "assistant"], "content": ["Hi?", "Hello."]}, TURNS),
        (b"", "options", {"a": ["x"], "b": ["1"]}, {"a": ["x"], "b": ["1"]}),
        (OPTIONS, "options", {"a": ["x", "y"], "b": ["1", "2"]}, [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]),
        (b"{", "options", {"a": ["x"], "b": ["1"]}, {"a": ["x"], "b": ["1"]}),
        (b'{"info": [[1]]}', "options", {"a": ["x"], "b": ["1"]}, {"a": ["x"], "b": ["1"]}),
    ],
)
def test_lists_of_fields_that_an_old_datasets_wrote_are_objects(
    tmp_path: Path, told: bytes, column: str, value: dict[str, Any], meant: Any
) -> None:
    table = pa.table({column: [value]}).replace_schema_metadata({"huggingface": told} if told else None)
    for file in tables(tmp_path, table):
        assert read(file).rows == [{column: meant}]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["1"], ["2"]], names=["question", "answer", "answer"]), tmp_path / "a.parquet")
    assert "two columns of one name: answer" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"ARROW1", b"{}", b"PAR1" + b"\0" * 50 + b"PAR1"])
def test_a_broken_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"{tmp_path / name}: not a readable {name[2:]} file" in refusal(tmp_path / name)
