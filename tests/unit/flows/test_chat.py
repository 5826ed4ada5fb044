"""A conversation, apart from the model: turns, commands, an answer that is stopped, and flags."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from data.errors import UsageError
from data.render import PromptTooLongError
from flows.commands import chat as command
from flows.commands.chat import Conversation, Talker, chat
from models.config import EngineConfig, SamplingConfig
from tasks.history.checkpoint import Checkpoint

SAMPLING = SamplingConfig(samples=1)


class Echo:
    """Answers with the number of turns and the last one, in pieces."""

    def __init__(self) -> None:
        self.heard: list[list[dict[str, str]]] = []

    def answer(self, messages: list[dict[str, str]], sampling: Any, seed: int | None) -> Generator[str]:
        self.heard.append(messages)
        said = messages[-1]["content"]
        if said == "long":
            raise PromptTooLongError("The conversation has 9 tokens, and the model's context is 8.")
        yield f"{len(messages)}:"
        if said == "stop":
            raise KeyboardInterrupt
        yield f"{said}\x1b[2J"


def talker(name: str, system: str | None = None) -> Talker:
    checkpoint = Checkpoint(Path(name), name, name, system, SAMPLING, "refuse", EngineConfig())
    return Talker(checkpoint, SAMPLING, Echo())  # type: ignore[arg-type]


def converse(conversation: Conversation, monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    given = iter([*lines, EOFError])

    def read(_: str) -> str:
        if isinstance(line := next(given), str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", read)
    conversation.in_terminal()


def test_turns_build_on_each_other_and_answers_cannot_act_on_the_terminal(monkeypatch, capsys):
    one = talker("one", system="Be brief.")
    converse(Conversation([one], None, None), monkeypatch, "hello", "and?")
    assert capsys.readouterr().out.count("\\x1b[2J") == 2
    assert [turn["role"] for turn in one.messages] == ["system", *["user", "assistant"] * 2]
    assert one.messages[-1]["content"] == "4:and?\x1b[2J"


def test_ctrl_c_ends_an_answer_and_not_the_conversation(monkeypatch, capsys):
    one = talker("one")
    converse(Conversation([one], None, None), monkeypatch, "stop", KeyboardInterrupt, "go on")
    out = capsys.readouterr().out
    assert "1: … (stopped)\n" in out and "Ctrl-D leaves." in out
    assert [turn["content"] for turn in one.messages] == ["stop", "1:", "go on", "3:go on\x1b[2J"]


def test_a_message_that_does_not_fit_is_not_part_of_the_conversation(monkeypatch, capsys):
    one = talker("one")
    converse(Conversation([one], None, None), monkeypatch, "long")
    assert "context is 8. /reset forgets" in capsys.readouterr().out and one.messages == []


def test_commands(monkeypatch, capsys, tmp_path):
    both = [talker("one"), talker("two")]
    file = tmp_path / "said.jsonl"
    lines = ("hi", f"/save {file}", "/reset", "/system Be brief.", "hi", f"/save {file}", "/save", "/save /no/x", "/no")
    converse(Conversation(both, None, None), monkeypatch, *lines, "/help", "/quit", "never read")
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["policy"] for row in rows] == ["one", "two"] * 2
    assert [turn["role"] for turn in rows[-1]["messages"]] == ["system", "user", "assistant"]
    for said in ("one:\n1:hi", "two:\n1:hi", "/save needs a file", "No such file", "There is no command /no"):
        assert said in out
    assert len(both[0].speaker.heard) == 2  # type: ignore[attr-defined]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = talker("one").checkpoint
    monkeypatch.setattr(command, "find_checkpoint", lambda runs, told, beside=None: checkpoint)
    monkeypatch.setattr(command, "Speaker", lambda folder, dtype, code: Echo())


@pytest.mark.parametrize("flags", [["--temperature", "-1"], ["--top-p", "0"], ["--top-k", "-1"], ["--max-tokens", "0"]])
def test_a_setting_out_of_range_is_refused(found, flags):
    with pytest.raises(UsageError, match=flags[0]):
        chat(["one", *flags])


def test_a_pipe_without_a_message_is_refused(found, monkeypatch, tmp_path):
    (tmp_path / "empty").write_text(" \n")
    with (tmp_path / "empty").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(UsageError, match="the input is empty"):
            chat(["one"])


def test_a_pipe_may_hold_bytes_that_are_no_text(found, monkeypatch, capsys, tmp_path):
    (tmp_path / "message").write_bytes(b"caf\xe9 \xed\xa0\x80\n")
    with (tmp_path / "message").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert chat(["one"]) == 0
    assert capsys.readouterr().out == "1:caf\ufffd \ufffd\ufffd\ufffd\\x1b[2J\n"
