"""Files as bytes, decompressed while reading. The compression is recognized by the first bytes, not by the name.

A file that was decompressed during download often keeps its `.gz`.
"""

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.prepare.sources.errors import DataFileError, unreadable

TEXTS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
TABLES = (".parquet", ".arrow", ".feather")
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
KNOWN = f"Known types are {', '.join(TEXTS)}, each also with {', '.join(PACKED)}; and {', '.join(TABLES)}."
AS_CSV, UNPACK = "save it as CSV", "unpack it"
REFUSED = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), AS_CSV),
    **dict.fromkeys((".tar", ".tgz", ".7z", ".rar", ".lz4", ".br", ".lzma", ".z"), UNPACK),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".npy", ".npz", ".h5", ".hdf5"), "write its rows as JSON Lines"),
    **dict.fromkeys((".avro", ".orc", ".db", ".sqlite", ".sqlite3", ".duckdb"), "write its rows as Parquet"),
    **dict.fromkeys((".xml", ".yaml", ".yml", ".pdf", ".docx"), "write its rows as JSON Lines"),
}
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
POINTER = b"version https://git-lfs.github.com/spec/"
SHOWN = 10  # members of an archive


def kind(path: Path) -> str:
    """The suffix that determines how a file is read, in lower case and without `.gz` and the like; empty if unknown.

    A zip whose name does not give its content is `.zip`.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in PACKED else ""
    if suffixes and suffixes[-1] in (*TEXTS, *TABLES):
        return suffixes[-1]
    return packed if packed == ".zip" else ""


def why_refused(path: Path) -> str:
    """Why a file of unknown type is not read, and what to do about it."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    known = next((suffix for suffix in reversed(suffixes) if suffix in REFUSED), None)
    return f"no {known} file is read: {REFUSED[known]}" if known else "its name has no known data suffix"


def packing(path: Path) -> str:
    """The compression of a file; empty if it has none.

    Raises:
        DataFileError: it cannot be read, or stands for a file that was not fetched.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(POINTER))
    except OSError as problem:
        raise unreadable(path, problem) from None
    if begins == POINTER:
        raise DataFileError(
            f"{path} is a pointer of Git LFS, not the data itself.", what_next="Fetch the data: git lfs pull."
        )
    return next((name for magic, name in MAGIC.items() if begins.startswith(magic)), "")


@contextmanager
def opened(path: Path) -> Iterator[tuple[io.BufferedReader, str]]:
    """A file's bytes, decompressed, and its type; for a zip, that of its only data file.

    Raises:
        DataFileError: it cannot be read, is broken, or is a zip with no data file or several.
    """
    packed = packing(path)
    try:
        if packed == "zip":
            with zipfile.ZipFile(path) as archive:
                member = _only_member(archive, path)
                with archive.open(member) as unpacked:
                    yield io.BufferedReader(unpacked), kind(Path(member.filename))  # type: ignore[arg-type]
        else:
            with _unpacked(path, packed) as bytes_:
                yield bytes_, kind(path)
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as problem:
        raise _broken(path, packed, problem) from None
    except OSError as problem:
        if problem.errno is None:  # not from the system but from decompression
            raise _broken(path, packed, problem) from None
        raise unreadable(path, problem) from None


def _unpacked(path: Path, packed: str) -> io.BufferedReader:
    if packed == "gzip":
        return io.BufferedReader(gzip.open(path))  # type: ignore[arg-type]
    if packed == "bzip2":
        return io.BufferedReader(bz2.open(path))
    if packed == "xz":
        return io.BufferedReader(lzma.open(path))
    if packed == "zstd":
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    names = [info for info in archive.infolist() if not info.is_dir() and not _hidden(info.filename)]
    data = [info for info in names if Path(info.filename).suffix.lower() in TEXTS]
    if len(data) != 1:
        held = ", ".join(info.filename for info in (data or names)[:SHOWN]) or "nothing"
        more = f" and {len(data or names) - SHOWN} more" if len(data or names) > SHOWN else ""
        count = "several data files" if data else "no file of rows in JSON, CSV or TSV"
        raise DataFileError(f"{path} holds {count}: {held}{more}.", what_next="Unpack it and name the file to read.")
    if data[0].flag_bits & 1:
        raise DataFileError(f"{path} is password-protected.", what_next="Unpack it and name the file in it.")
    return data[0]


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) and part != ".." for part in Path(name).parts)


def _broken(path: Path, packed: str, problem: Exception) -> DataFileError:
    return DataFileError(f"{path}: broken {packed or 'file'} ({problem}).", what_next="Fetch the file again.")
