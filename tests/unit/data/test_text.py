"""Whatever somebody else wrote: every file takes it, and on a terminal or a page it means only itself."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.text import fenced, markdown, markdown_table, storable, visible

# Halves of surrogate pairs are characters, too.
TEXTS = st.text(st.characters(exclude_categories=()), max_size=60)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain", "plain"),
        ("é 你 🙂", "é 你 🙂"),
        ("a\ud800b", "a\\ud800b"),
        ("\udcff", "\\udcff"),
        ("", ""),
        ("a\0b", "a\\x00b"),
    ],
)
def test_what_no_file_or_database_takes_is_spelled_out(text: str, stored: str) -> None:
    assert storable(text) == stored


def test_a_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert storable("x" * 10_000_000, 5) == "xxxxx … (10,000,000 characters in all)"
    assert storable("12345", 5) == "12345"


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("one\rtwo", "one\\rtwo"),
        ("\x9b31m red", "\\x9b31m red"),
        ("a\u202eb\u2066c\u2028d\u2029", "a\\u202eb\\u2066c\\u2028d\\u2029"),
        ("\ud83d", "\\ud83d"),
        ("hidden \U000e0041\U000e0042", "hidden \\U000e0041\\U000e0042"),
        ("line\n\tnext", "line\n\tnext"),
        (
            "می\u200cخواهم 👩\u200d🔬 \u200fא",
            "می\u200cخواهم 👩\u200d🔬 \u200fא",
        ),  # joiners and marks are part of writing
    ],
)
def test_what_would_act_on_a_terminal_is_spelled_out(text: str, seen: str) -> None:
    assert visible(text) == seen


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a | b\n# c", r"a \| b \# c"),
        ("![x](https://example.org/x.png)", r"\!\[x\]\(https\:\/\/example\.org\/x\.png\)"),
        ("<img src=x onerror=alert(1)>", r"\<img src\=x onerror\=alert\(1\)\>"),
        ("x\r## forged", r"x \#\# forged"),
        ("`code` &amp; *bold*", r"\`code\` \&amp\; \*bold\*"),
    ],
)
def test_markdown_means_nothing(text: str, written: str) -> None:
    assert markdown(text) == written


@given(TEXTS)
def test_no_text_is_refused_by_a_file_or_acts_on_a_surface(text: str) -> None:
    storable(text).encode()
    seen = visible(text)
    seen.encode()
    assert not [c for c in seen if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") and c not in "\n\t"]
    assert not {"\n", "\t", "\r"} & set(markdown(text))
    assert json.loads(json.dumps(storable(text))) == storable(text)


def test_nothing_in_a_block_of_code_ends_it() -> None:
    assert fenced("a\n````\n# b\x1b\n", "yaml") == "`````yaml\na\n````\n# b\\x1b\n`````"
    assert fenced("a", "") == "```\na\n```"


def test_nothing_in_a_cell_ends_it() -> None:
    rows = [{"a": "x | y\n", "b": None}, {"a": 1, "b": "z"}]
    assert markdown_table(rows) == "| a | b |\n| --- | --- |\n| x \\| y |  |\n| 1 | z |"
