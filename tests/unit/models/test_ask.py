"""Asking a model that runs here: the engine has the context that what is expected needs, and no request exceeds it."""

from pathlib import Path
from typing import Any

import pytest

from models.asking import ask
from models.asking.request import Form, Request
from models.config import EngineConfig, JudgeConfig
from models.engine import Completion, Served
from tests.unit.toy import write_tiny

FORM = Form("judge", "judgement", {}, 10)


def request(words: int) -> Request:
    return Request([{"role": "user", "content": "Ada " * words}], 0)


def test_what_is_longer_than_was_expected_gets_no_reply_and_the_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tiny(tmp_path, ["Ada has apples."])
    contexts = []

    def start(served: Served, _: EngineConfig) -> Any:
        contexts.append(served.context)
        return object()

    def answers(_: Any, requests: list[Any], meter: Any) -> list[list[Completion]]:
        assert all(len(one.prompt) + one.max_tokens <= contexts[0] for one in requests)
        return [[Completion("yes", [1], "stop")] for _ in requests]

    monkeypatch.setattr(ask, "start", start)
    monkeypatch.setattr(ask, "answers_in_order", answers)
    config = JudgeConfig(model=str(tmp_path))
    send = ask.asker(config, FORM, tmp_path, EngineConfig(), 0, iter([request(5), request(20)]))
    said = send([request(5), request(40), request(20)])
    assert [reply.text for reply in said] == ["yes", "", "yes"]
    assert "does not fit" in said[1].failure and len(contexts) == 1
