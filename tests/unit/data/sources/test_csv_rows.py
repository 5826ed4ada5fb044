"""CSV as spreadsheets and programs write it."""

from pathlib import Path

import pytest

from tests.unit.data.sources.reading import read, refusal

ROWS = [{"question": "a", "answer": "1"}, {"question": "é, b", "answer": "2"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("UPPER.CSV", 'question,answer\na,1\n"é, b",2\n'),
        ("a.csv", "question;answer\na;1\né, b;2\n"),
        ("a.csv", "\ufeffquestion;answer\r\na;1\r\né, b;2\r\n"),
        ("a.csv", "question\tanswer\na\t1\né, b\t2\n"),
        ("a.csv", "sep=;\nquestion;answer\na;1\né, b;2\n"),
        ("a.csv", "question|answer\na|1\né, b|2"),
        ("a.TSV", "question\tanswer\na\t1\né, b\t2\n"),
        ("a.tsv", "question;answer\na;1\né, b;2\n"),
        ("a.csv", '"question","answer"\n"a","1"\n"é, b","2"\n\n'),
    ],
)
def test_what_separates_fields_is_told_by_the_header(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, newline="", encoding="utf-8")
    assert read(tmp_path / name).rows == ROWS


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ('question;answer;"a, b"', ["question", "answer", "a, b"]),
        ('"x; y";"z|w"', ["x; y", "z|w"]),
        ('"a, b"', ["a, b"]),
    ],
)
def test_a_sign_in_a_quoted_name_separates_nothing(tmp_path: Path, header: str, names: list[str]) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\n{';'.join('123'[: len(names)])}\n")
    assert [list(row) for row in read(tmp_path / "a.csv").rows] == [names]


def test_blanks_around_names_and_columns_without_a_name_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question, answer ,,\na,1,,\n")
    assert read(tmp_path / "a.csv").rows == [{"question": "a", "answer": "1", "": ""}]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("question,answer,answer", "two columns of one name: 'answer'"),
        ("question;answer;answer", "two columns of one name: 'answer'"),
        ("a, a,b", "'a'"),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str, says: str) -> None:
    path = tmp_path / "dup.csv"
    path.write_text(f"{header}\nWhat is 1+1?,2,3\n")
    for drop in (False, True):
        assert f"{path}, line 1: the header has" in refusal(path, drop)
        assert says in refusal(path, drop)


@pytest.mark.parametrize(
    ("content", "place", "reason", "kept"),
    [
        (b"a,b\n1,2\n3\n4,5\n", "line 3", "wrong number of fields", 2),
        (b"a,b\n1,2,3\n4,5\n", "line 2", "wrong number of fields", 1),
        (b'a,b\n1,2\n3,"cut', "line 3", "malformed CSV", 1),
        (b'a,b\n"1"x,2\n3,4\n', "line 2", "malformed CSV", 1),
        (b"a,b\n\xff,2\n3,4\n", "line 2", "not UTF-8", 1),
    ],
)
def test_a_row_that_is_none_is_refused_or_left_out(
    tmp_path: Path, content: bytes, place: str, reason: str, kept: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    assert f"{path}, {place}: " in refusal(path)
    found = read(path, drop=True)
    assert (found.dropped, len(found.rows)) == ([reason], kept)


def test_an_unreadable_header_is_refused_whatever_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"qu\xe9stion,answer\n1,2\n")
    assert "not UTF-8" in refusal(tmp_path / "a.csv", drop=True)
