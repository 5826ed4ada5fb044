"""Packed files are read, told by what is in them; what is not read is refused with what to do."""

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from data.prepare.sources import hub_name
from tests.unit.data.sources.reading import line, read, refusal, write_files

LINES = (line(1) + line(2)).encode()
TABLE = b"question,answer\nWhat is 1?,1\nWhat is 2?,2\n"
READ = [{"question": "What is 1?", "answer": "1"}, {"question": "What is 2?", "answer": "2"}]


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", [*PACK, *map(str.upper, PACK)])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.JSON", LINES), ("a.csv", TABLE)])
def test_a_packed_file_is_read(tmp_path: Path, name: str, content: bytes, ending: str) -> None:
    path = tmp_path / (name + ending)
    path.write_bytes(PACK[ending.lower()](content))
    assert read(path).rows == read(write_files(tmp_path / "folder", {path.name: path.read_bytes()})).rows == READ
    assert hub_name(Path("data") / path.name) is None


@pytest.mark.parametrize("ending", PACK)
def test_a_file_of_several_parts_is_read_whole(tmp_path: Path, ending: str) -> None:
    pack = PACK[ending]
    (tmp_path / f"a.jsonl{ending}").write_bytes(pack(line(1).encode()) + pack(line(2).encode()))
    assert read(tmp_path / f"a.jsonl{ending}").rows == READ


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl.zst", LINES), ("a.csv.gz", TABLE), ("a.jsonl", gzip.compress(LINES))]
)
def test_the_content_says_what_packs_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name).rows == READ


@pytest.mark.parametrize(
    ("ending", "says"),
    [(".gz", "broken gzip"), (".bz2", "broken bzip2"), (".xz", "broken xz"), (".zst", "broken zstd")],
)
@pytest.mark.parametrize("drop", [False, True])
def test_a_broken_file_is_refused(tmp_path: Path, ending: str, says: str, drop: bool) -> None:
    whole = PACK[ending](b"".join(line(number).encode() for number in range(2000)))
    for content in (whole[: len(whole) // 2], whole[:12] + b"\0" * 90):
        (tmp_path / f"a.jsonl{ending}").write_bytes(content)
        assert says in refusal(tmp_path / f"a.jsonl{ending}", drop)


@pytest.mark.parametrize("name", ["a.zip", "a.jsonl.zip", "A.ZIP"])
def test_a_zip_of_one_data_file_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(
        zipped({"data/rows.jsonl": LINES, "README.md": b"#", "__MACOSX/data/._rows.jsonl": b"?"})
    )
    assert read(tmp_path / name).rows == READ
    (tmp_path / name).write_bytes(zipped({"../rows.jsonl": LINES}))
    assert read(tmp_path / name).rows == READ
    (tmp_path / name).write_bytes(zipped({"rows.CSV": TABLE}))
    assert read(tmp_path / name).rows == READ


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zipped({"a.jsonl": LINES, "b.jsonl": LINES}), "several data files: a.jsonl, b.jsonl. Unpack it"),
        (zipped({"a.png": b"?", "b.txt": b"?"}), "no file of rows in JSON, CSV or TSV: a.png, b.txt"),
        (zipped({"a.parquet": b"PAR1"}), "no file of rows in JSON, CSV or TSV: a.parquet"),
        (zipped({"a.jsonl.gz": gzip.compress(LINES)}), "no file of rows in JSON, CSV or TSV: a.jsonl.gz. Unpack it"),
        (zipped({}), "no file of rows in JSON, CSV or TSV: nothing"),
        (zipped({"a.jsonl": LINES})[:60], "broken zip"),
    ],
)
def test_another_zip_is_refused_with_what_it_holds(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    assert says in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a.xlsx", "No .xlsx file is read: save it as CSV."),
        ("a.XLS", "No .xls file is read: save it as CSV."),
        ("a.jsonl.lz4", "No .lz4 file is read: unpack it."),
        ("a.tar.gz", "No .tar file is read: unpack it."),
        ("a.tgz", "No .tgz file is read: unpack it."),
        ("a.pkl", "No .pkl file is read: write its rows as JSON Lines."),
        ("a.sqlite", "No .sqlite file is read: write its rows as Parquet."),
    ],
)
def test_a_kind_that_is_not_read_is_refused_by_name(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"?")
    assert says in refusal(tmp_path / name)
    write_files(tmp_path, {"a.jsonl": LINES})
    assert read(tmp_path).skipped == {name: says[0].lower() + says[1:-1]}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv", "a.parquet", "a.arrow"])
@pytest.mark.parametrize("drop", [False, True])
def test_a_file_that_git_did_not_fetch_is_refused_as_such(tmp_path: Path, name: str, drop: bool) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_text(pointer)
    assert f"{tmp_path / name} is a pointer of Git LFS, not the data itself. Fetch the data" in refusal(
        tmp_path / name, drop
    )


def test_a_packed_table_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    assert "a table compressed as gzip is not read. Unpack it." in refusal(tmp_path / "a.parquet.gz")
