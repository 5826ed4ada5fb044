"""`autodidact data inspect` says what a data set is, and counts what will be dropped."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from data.prepare.problems import AS_TEXT
from data.prepare.reading import Reading
from flows.commands.cli import main
from models import tiny
from tasks.datasets.inspect import inspect

ROWS: list[dict[str, Any]] = [
    {"instruction": "Say hi.", "input": "", "output": "Hi."},
    {"instruction": "say  HI.", "output": "Hello."},
    {"instruction": "Say it in Chinese.", "input": "Hi", "output": "你好"},
    {"instruction": "Say nothing.", "output": ""},
]


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path


def test_rows_are_counted_measured_and_shown(tmp_path: Path) -> None:
    found = inspect(Reading(write(tmp_path, ROWS)), "demonstrations")
    assert (found.tally.rows, found.records, found.usable) == (4, 3, 2)
    assert dict(found.tally.dropped) == {"empty output": 1}
    assert list(found.prompts) == [7, 8, 21]
    assert list(found.answers) == [3, 6, 2]
    assert [at.rsplit(", ")[-1] for at, _ in found.shown] == ["row 1", "row 2", "row 3"]


def test_with_a_tokenizer_lengths_are_tokens_and_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    tokenizer = tiny.tiny_tokenizer(["Say hi in Chinese."])
    reading = Reading(write(tmp_path, ROWS))
    whole = inspect(reading, "demonstrations", tokenizer)
    longest = max(map(sum, zip(whole.prompts, whole.answers, strict=True)))
    found = inspect(reading, "demonstrations", tokenizer, context=longest - 1)
    assert found.left_out == {"duplicate": 1, "longer than the context": 1}
    assert found.usable == 1


def test_the_same_prompt_with_other_answers_is_another_pair(tmp_path: Path) -> None:
    pair = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}
    rows = [pair, pair, pair | {"rejected": "Go."}, pair | {"rejected": " Hello."}]
    found = inspect(Reading(write(tmp_path, rows)), "pairs")
    assert (found.records, found.left_out, found.tally.dropped) == (3, {"duplicate": 1}, {"equal_sides": 1})


def test_problems_without_a_final_answer_and_near_duplicates_are_counted(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(60))
    texts = [("1 + 1?", "#### 2"), ("Why?", "Because\nso."), (long, "3"), (f"{long} indeed", "3")]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in texts))
    found = inspect(Reading(path), "problems", near_duplicates=0.8)
    assert found.left_out == {"no final answer": 1, "near_duplicate": 1}
    assert found.tally.first["near_duplicate"].endswith("line 4")
    assert inspect(Reading(path), "problems").left_out == {"no final answer": 1}


def test_references_that_cannot_be_read_as_mathematics_are_counted(tmp_path: Path) -> None:
    answers = ["C++", r"\frac{1}{2}", r"\sqrt{x_1}", "Tuesday", r"so \boxed{1, 2, \ldots, n}", "3:30", "7"]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}?", "answer": a}) + "\n" for n, a in enumerate(answers)))
    found = inspect(Reading(path), "problems")
    assert (found.usable, found.tally.noticed[AS_TEXT]) == (7, 2)
    assert found.tally.first == {AS_TEXT: f"{path}, line 1"}


def test_the_command_says_format_reason_drops_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(write(tmp_path, ROWS))]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in (
        "is alpaca (Alpaca, BELLE, COIG): it has instruction, output, input",
        "4 rows gave 3 demonstrations, 2 of them usable",
        "empty output",
        "duplicate",
        "user: Say it in Chinese. Hi ▸ answer: 你好",
    ):
        assert words in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.json"], "There is no file absent.json"),
        (["rows.json", "--use", "pairs"], "It can serve as demonstrations or problems or prompts, not as pairs"),
        (["rows.json", "--format", "alpacca"], "There is no format 'alpacca'"),
        (["rows.json", "--model", "absent"], "absent"),
    ],
)
def test_what_cannot_be_inspected_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    write(tmp_path, ROWS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["data", "inspect", *arguments]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% if %}", "The chat template is not valid Jinja: "),
        ("{{ raise_exception('not so') }}", "The chat template fails on the prompt 'Say hi.': not so."),
        ("always the same", "The chat template leaves the user's message out of the prompt 'Say hi.'."),
    ],
)
def test_a_template_that_cannot_render_a_row_is_refused_naming_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str, says: str
) -> None:
    tiny.write_untrained(tmp_path / "model", ["Say hi."])
    (tmp_path / "model" / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "own.jinja").write_text(template)
    rows, model, own = write(tmp_path, ROWS), str(tmp_path / "model"), str(tmp_path / "own.jinja")
    assert main(["data", "inspect", str(rows), "--model", model, "--template", own]) == 2
    assert f"{rows}, row 1: {says}" in capsys.readouterr().err
