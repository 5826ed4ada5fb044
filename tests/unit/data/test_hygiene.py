"""What no text may hold is refused, what nobody sees is counted, and placeholders are filled in or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.formats import ContentError, Record
from data.prepare.hygiene import cleaned, has_hidden, has_placeholder
from data.prepare.reading import Reading, Tally, read_records
from data.prepare.sources import DataFileError
from tasks.datasets.problems import ProblemSource


def said(text: str, **fields: str) -> Record:
    return Record([{"role": "user", "content": text}], **fields)


@pytest.mark.parametrize("sign", ["\x00", "\x07", "\x1b", "\x7f"])
@pytest.mark.parametrize("field", ["prompt", "response", "rejected", "reference"])
def test_a_control_character_in_any_text_makes_a_row_unusable(sign: str, field: str) -> None:
    text = f"before{sign}after"
    record = said(text) if field == "prompt" else said("Hi?", **{field: text})
    with pytest.raises(ContentError, match=rf"U\+{ord(sign):04X} is in") as refused:
        cleaned(record, {})
    assert refused.value.reason == "control character"


@pytest.mark.parametrize(
    ("roles", "right"),
    [
        ("user", True),
        ("system user", True),
        ("user assistant user", True),
        ("system user assistant user", True),
        ("assistant user", False),
        ("user user", False),
        ("system user assistant assistant user", False),
    ],
)
def test_turns_have_to_alternate(roles: str, right: bool) -> None:
    record = Record([{"role": role, "content": "Hi."} for role in roles.split()])
    if right:
        assert cleaned(record, {}) is record
    else:
        with pytest.raises(ContentError, match=r"the turns are .*User and assistant must alternate"):
            cleaned(record, {})


@pytest.mark.parametrize("text", ["a\tb\nc\r\nd\x0be\x0cf", "שלום", "مرحبا", "你好", "👩‍👩‍👧", "naïve"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    record = said(text, response=text)
    assert cleaned(record, {}) is record


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("a\u200bb", True),
        ("â\x80\x94", True),
        ("\ufeffa", True),
        ("a\u202eb", True),
        ("\u200fשלום", True),
        ("שלום", False),
        ("a b", False),
    ],
)
def test_rows_with_signs_that_nobody_sees_are_noticed(text: str, hidden: bool) -> None:
    assert has_hidden(said("Hi?", response=text)) == hidden


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("I am {{name}}.", "I am Ada."),
        ("我是{{name}}，由{{ author }}开发", "我是Ada，由us开发"),
        ("{{name}}{{name}}", "AdaAda"),
        ("I'm{{name}}", "I'mAda"),
        (r"\frac{{name}}{{author}}", r"\frac{{name}}{{author}}"),
        ("x^{{name}}", "x^{{name}}"),
        ("{{{name}}}", "{{{name}}}"),
        ("{name} {{1}} {{ }} {{x}}", "{name} {{1}} {{ }} {{x}}"),
        ("{{itself}}", "{{itself}}"),
    ],
)
def test_placeholders_are_filled_in_and_the_braces_of_latex_are_none(text: str, filled: str) -> None:
    values = {"name": "Ada", "author": "us", "itself": "{{itself}}"}
    found = cleaned(said(text, response=text, rejected=text, reference=text), values)
    assert found == said(filled, response=filled, rejected=filled, reference=filled)


def test_a_placeholder_for_which_nothing_is_given_stays() -> None:
    found = cleaned(said("Who made you?", response="I am {{name}} by {{author}}."), {"name": "Ada"})
    assert found.response == "I am Ada by {{author}}."
    assert has_placeholder(found)
    assert not has_placeholder(said(r"\frac{{name}}{{author}} {{x}}"))


def test_programs_keep_their_braces() -> None:
    record = said('f"{{name}}"', reference='"{{name}}"')
    assert cleaned(record, None) is record


def rows(folder: Path, *answers: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": "Hi?", "response": answer}) + "\n" for answer in answers))
    return path


def test_such_rows_are_refused_with_their_line_or_dropped_and_counted(tmp_path: Path) -> None:
    path = rows(tmp_path, "I am {{name}}", "\x00", "a\u200bb", "I am {{other}}")
    with pytest.raises(DataFileError, match=r"rows.jsonl, line 2: the control character U\+0000"):
        list(read_records(Reading(path, placeholders={"name": "Ada"}), "demonstrations", Tally()))
    tally = Tally()
    reading = Reading(path, drop=True, placeholders={"name": "Ada"})
    found = [record.response for _, record in read_records(reading, "demonstrations", tally)]
    assert found == ["I am Ada", "a\u200bb", "I am {{other}}"]
    assert (tally.rows, tally.hidden) == (4, 1)
    assert dict(tally.dropped) == {"control character": 1}


ODD: list[Any] = [
    '{"prompt": "a", "prompt": "b", "response": "c"}',
    '{"prompt": "a", "response": "\\ud800"}',
    '{"prompt": "a", "response": ' + "[" * 5000 + "]" * 5000 + "}",
    '{"prompt": "a", "response": null}',
    '{"prompt": "", "response": "b"}',
    '{"prompt": "a", "response": "b\\u0000"}',
    '{"prompt": "a", "response": NaN}',
]


@pytest.mark.parametrize("line", ODD)
def test_odd_rows_end_in_a_message_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"prompt": "Hi?", "response": "Hello."}\n' + line + "\n")
    with pytest.raises(DataFileError, match=r"odd\.jsonl, line 2: "):
        list(read_records(Reading(path), "demonstrations", Tally()))


def test_the_advice_is_about_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataFileError) as refused:
        list(read_records(Reading(rows(tmp_path, "I am \x00")), "demonstrations", Tally()))
    assert "Every row needs" not in str(refused.value)
    assert str(refused.value).endswith("or leave such rows out with unusable: drop.")


@pytest.mark.parametrize("name", ["x", "", "a b", "{{name}}"])
def test_a_name_that_no_placeholder_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="placeholders"):
        ProblemSource(placeholders={name: "Ada"})


def test_a_row_of_a_megabyte_is_read_whole(tmp_path: Path) -> None:
    (record,) = [r for _, r in read_records(Reading(rows(tmp_path, "b" * 1_000_000)), "demonstrations", Tally())]
    assert len(record.response or "") == 1_000_000
