"""Rows of CSV and TSV, as texts keyed by the header's names."""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO

from data.prepare.sources.errors import DataFileError, Drop, leave_out
from data.prepare.sources.json_rows import TO_UTF8, Located, is_utf8, lines
from data.prepare.sources.json_values import LONGEST_ROW
from data.rows import Split

SEPARATORS = ",;\t|"
SEPARATED_BY = "sep="  # a line before the header, for spreadsheets
QUOTE = "Quote texts that contain a separator."
QUOTED = re.compile(r'"[^"]*"')


def csv_rows(file: IO[bytes], path: Path, separator: str, split: Split | None, drop: Drop | None) -> Iterator[Located]:
    """The rows of a CSV file. If a one-column header contains another separator, that separator is used.

    Args:
        separator: the field separator, unless the header indicates another.
        split: the file's split.
        drop: called for unreadable rows.

    Raises:
        DataFileError: a row is unreadable and not to be dropped; or the header has a name twice or is not UTF-8.
    """
    csv.field_size_limit(LONGEST_ROW)
    text = lines(file, path)
    begins = list(islice(text, 1))
    reader = csv.reader(chain(begins, text), delimiter=_separator("".join(begins), separator), strict=True)
    names: list[str] | None = None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as problem:
            at = f"{path}, line {reader.line_num}"
            leave_out(drop if names else None, "malformed CSV", f"{at}: malformed CSV ({problem})", QUOTE)
            continue
        if fields is None:
            return
        at = f"{path}, line {reader.line_num}"
        if not fields or (names is None and fields[0].lower() == SEPARATED_BY):
            continue
        if names is None:
            names = _header(fields, at)
        elif len(fields) != len(names):
            said = f"{at}: not as many fields as the header has columns ({len(names)})"
            leave_out(drop, "wrong number of fields", said, QUOTE)
        elif not all(map(is_utf8, fields)):
            leave_out(drop, "not UTF-8", f"{at}: not UTF-8", TO_UTF8)
        else:
            yield at, dict(zip(names, fields, strict=True)), split


def _separator(header: str, expected: str) -> str:
    header = QUOTED.sub("", header)
    if expected in header:
        return expected
    return max(SEPARATORS, key=header.count) if any(sign in header for sign in SEPARATORS) else expected


def _header(names: list[str], at: str) -> list[str]:
    """The column names, stripped; several may be empty.

    Raises:
        DataFileError: two are the same, so it is unknown which one is meant.
    """
    if not all(map(is_utf8, names)):
        raise DataFileError(f"{at}: not UTF-8.", what_next=TO_UTF8)
    names = [name.strip() for name in names]
    if twice := [name for name, times in Counter(names).items() if times > 1 and name]:
        raise DataFileError(
            f"{at}: the header has two columns of one name: {', '.join(map(repr, twice))}.",
            what_next="Rename or remove one of them.",
        )
    return names
