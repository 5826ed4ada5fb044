"""`data format --write-prompts`: passages in, demonstrations out, by an endpoint on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flows.commands.datasets
from data.prepare.problems import read_problems
from data.prepare.reading import Reading, Tally
from data.prepare.written_prompts import PromptReply
from data.rows import Problem
from data.storage import read_rows
from flows.commands.cli import main
from tests.endpoint import Server, serving

PLANTS = [f"plant{number}" for number in range(40)]
OF = "The plant called {0} grows on the northern slopes, wants little water, and is harvested late in the year."


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flows.commands.datasets, "prepare", lambda *_, **__: None)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    rows = [{"title": name, "body": OF.format(name)} for name in PLANTS]
    rows += [{"title": "stub", "body": "A stub."}, rows[0]]
    (tmp_path / "plants.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bench.jsonl").write_text(json.dumps({"question": asked_of("plant7"), "answer": "1"}) + "\n")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


def asked_of(name: str) -> str:
    return f"Where does {name} grow?"


def plant_of(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"]).split()[4]


def answer(body: dict[str, Any]) -> tuple[int, str]:
    name = plant_of(body)
    said = {"plant1": "", "plant2": "I'm sorry, I can't.", "plant3": OF.format(name)}.get(name, asked_of(name))
    return 200, json.dumps({"instruction": said})


def format_plants(server: Server, *more: str) -> int:
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    told = ["--columns", '{"text": "body"}', "--write-prompts.endpoint", address, "--write-prompts.model", "writer"]
    told += ["--write-prompts.shortest", "50", "--overlap.near-duplicates", "1", "--output", "rows"]
    return main(["data", "format", "plants.jsonl", *told, "--overlap.held-out", "bench.jsonl", *more])


def test_passages_become_demonstrations_that_a_loop_reads(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.answer = answer
    assert format_plants(server) == 0
    told = json.loads(Path("rows/_summary.json").read_text())
    assert (told["use"], told["rows"], sum(sum(kept.values()) for kept in told["kept"].values())) == (
        "passages",
        42,
        36,
    )
    assert told["dropped"] == {
        "passage too short": 1,
        "passage again": 1,
        "empty prompt": 1,
        "refusal": 1,
        "repeats the passage": 1,
        "contaminated": 1,
    }
    assert (told["prompts"]["model"], told["prompts"]["seed"]) == ("writer", 0)
    found = list(read_problems(Reading(Path("rows")), None, None, Tally()))
    prompts = {problem.messages[0]["content"]: problem.response for problem in found}
    assert prompts == {
        asked_of(name): OF.format(name) for name in PLANTS if name not in ("plant1", "plant2", "plant3", "plant7")
    }
    assert {problem.source for problem in found} == {"plants.jsonl, prompt by writer"}
    assert {file.name for file in Path("rows").iterdir()} >= {"train.parquet", "test.parquet", "_replies.parquet"}
    assert [p.split for p in read_rows(Problem, Path("rows/test.parquet"))].count("train") == 0
    assert len(list(read_rows(PromptReply, Path("rows/_replies.parquet")))) == 40
    assert (server.keys, len(server.requests)) == ({"Bearer secret"}, 40)
    assert "secret" not in "".join(file.read_text() for file in tmp_path.rglob("*.json"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench.jsonl", "plants.jsonl", "rows"]
    printed = capfd.readouterr()
    for words in ("writer wrote the prompts", "repeats the passage", "42 rows read as passages"):
        assert words in printed.out
    assert "prompts: finished" in printed.err


def test_what_was_left_unfinished_goes_on_and_asks_only_for_what_is_missing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda body: (200, "") if plant_of(body) > "plant30" else answer(body)
    assert format_plants(server) == 1
    assert "gave no reply for 15 of 40 passages" in (said := capsys.readouterr().err)
    assert "only requests without a reply are sent again" in said
    assert not Path("rows").exists()
    server.requests.clear()
    server.answer = answer
    assert format_plants(server) == 0
    assert len(server.requests) == 15
    assert json.loads(Path("rows/_summary.json").read_text())["dropped"]["refusal"] == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bench.jsonl", "plants.jsonl", "rows"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plants.jsonl", "--columns", '{"text": "body"}'], "plants.jsonl holds texts without prompts"),
        (["bench.jsonl", "--write-prompts.model", "m"], "the rows of bench.jsonl are read as problems"),
        (["plants.jsonl", "--columns", '{"text": "body"}', "--write-prompts.model", "./no"], "./no is not a model"),
        (["texts.jsonl", "--write-prompts.shortest", "5"], "The prompt writer has no model"),
        (["texts.jsonl", "--write-prompts.endpoint", "http://localhost/v1"], "The prompt writer at http://localhost"),
        (["texts.jsonl", "--write-prompts.endpoint", "host", "--write-prompts.model", "m"], "'host' is not a URL"),
        (["texts.jsonl", "--write-prompts.model", "m", "--mixture", "b=1"], "mixture: with write_prompts, only"),
        (["texts.jsonl", "--write-prompts.model", "m", "--test", "b"], "test: with write_prompts, only"),
        (
            ["texts.jsonl", "--write-prompts.endpoint", "http://localhost/v1", "--write-prompts.model", "m"],
            "1 row read, and none is a passage of 200 to 8,000 characters (1 passage too short)",
        ),
        (["texts.jsonl", "--write-prompts.shortest", "9", "--write-prompts.longest", "8"], "No passage can have"),
        (["texts.jsonl", "--use", "demonstrations"], "Have a model write the prompts: autodidact data format"),
    ],
)
def test_what_cannot_have_prompts_written_is_refused_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "A stub."}\n')
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "format", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_passages_are_inspected_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", "plants.jsonl", "--columns", '{"text": "body"}']) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "42 rows gave 42 passages, 41 of them usable" in printed
    assert "Have a model write the prompts" in printed
