"""Rounds of made-up prompts: each sees what those before made up, and only what is missing is asked for again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.prepare.new_prompts import MadeUp
from data.rows import Problem
from data.storage import read_rows, write_rows
from models.asking import new_prompts
from models.asking.new_prompts import ROUND, make_up
from models.asking.request import Reply, Request
from models.config import EngineConfig, NewPromptsConfig, NewPromptsProgram


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What the model was asked. It refuses every seventh request, and does not reply to every fifth."""
    found: list[Request] = []

    def reply(request: Request) -> Reply:
        if request.seed % 5 == 0:
            return Reply("", "no time")
        said = "I'm sorry, I can't." if request.seed % 7 == 0 else f"Tell of number {request.seed}, please."
        return Reply(json.dumps({"instruction": said}))

    def ask(requests: Sequence[Request]) -> list[Reply]:
        found.extend(requests)
        return [reply(request) for request in requests]

    monkeypatch.setattr(new_prompts, "asker", lambda *_: ask)
    return found


def program(folder: Path, **settings: Any) -> NewPromptsProgram:
    rows = [
        Problem(f"{n:016x}", [{"role": "user", "content": f"Say {n}."}], None, None, "s", "train") for n in range(9)
    ]
    write_rows(Problem, folder / "seeds.parquet", rows)
    told = NewPromptsConfig.model_validate({"count": ROUND + 20} | settings)
    seeds, output = folder / "seeds.parquet", folder / "replies"
    return NewPromptsProgram(writer=told, policy=None, seeds=seeds, output=output, engine=EngineConfig(), seed=1)


def test_later_rounds_see_usable_prompts_of_earlier_ones(asked: list[Request], tmp_path: Path) -> None:
    make_up(program(tmp_path))
    replies = list(read_rows(MadeUp, tmp_path / "replies"))
    assert [reply.number for reply in replies] == list(range(ROUND + 20))
    own = [[int(name[1:]) for name in reply.examples if name.startswith("#")] for reply in replies]
    assert own[:ROUND] == [[]] * ROUND and {len(names) for names in own[ROUND:]} == {2}
    shown = {number for names in own for number in names}
    assert all("Tell of number" in replies[number].text for number in shown)


def test_a_missing_round_is_asked_for_again_and_no_other(asked: list[Request], tmp_path: Path) -> None:
    make_up(program(tmp_path))
    before = list(read_rows(MadeUp, tmp_path / "replies"))
    asked.clear()
    make_up(program(tmp_path))
    assert not asked
    sorted((tmp_path / "replies").iterdir())[1].unlink()
    make_up(program(tmp_path))
    assert len(asked) == 20 and list(read_rows(MadeUp, tmp_path / "replies")) == before


def test_an_endpoint_is_asked_again_for_what_it_did_not_reply_to(asked: list[Request], tmp_path: Path) -> None:
    there = {"endpoint": "http://localhost:1/v1", "model": "writer"}
    make_up(program(tmp_path, **there))
    failed = sum(not reply.text for reply in read_rows(MadeUp, tmp_path / "replies"))
    asked.clear()
    make_up(program(tmp_path, **there))
    assert len(asked) == failed > 0
