"""Formats of instructions with one answer, and of conversations."""

import re
from collections.abc import Iterator

from data.formats.record import (
    SHAREGPT,
    Format,
    Message,
    Record,
    Row,
    RowError,
    Use,
    answered,
    assistant,
    items,
    optional_text,
    short,
    text,
    turns,
    user,
    with_system,
)

_BAIZE_TURN = re.compile(r"\[\|(Human|AI)\|\]")


def _alpaca(row: Row, answer: str = "output", context: str = "input") -> Iterator[Record]:
    """Instruction and context in one turn, on two lines, as LLaMA-Factory joins them; earlier rounds before it."""
    rounds: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise RowError("bad history", f"'history' is {short(history)}. It must be a list of rounds.")
    for number, said in enumerate(history, start=1):
        if not isinstance(said, list) or len(said) != 2 or not all(isinstance(s, str) and s.strip() for s in said):
            raise RowError(
                "bad history", f"round {number} of 'history' is {short(said)}. It must be a question and an answer."
            )
        rounds += [user(said[0]), assistant(said[1])]
    asked = "\n".join(filter(None, (text(row, "instruction"), optional_text(row, context))))
    yield Record(with_system(row, [*rounds, user(asked)]), text(row, answer))


def _dolly(row: Row) -> Iterator[Record]:
    return _alpaca(row, "response", "context")


def _self_instruct(row: Row) -> Iterator[Record]:
    for instance in items(row, "instances"):
        if not isinstance(instance, dict):
            raise RowError("not an instance", f"an item of 'instances' is {short(instance)}, not an object")
        yield from _alpaca({"instruction": row.get("instruction"), **instance})


def _prompt_response(row: Row) -> Iterator[Record]:
    answer = next((name for name in ("response", "completion") if name in row), "response")
    yield Record(with_system(row, [user(text(row, "prompt"))]), text(row, answer))


def _sharegpt(row: Row) -> Iterator[Record]:
    yield answered(with_system(row, turns(items(row, "conversations"), "conversations", SHAREGPT)), "conversations")


def _messages(row: Row) -> Iterator[Record]:
    yield answered(with_system(row, turns(items(row, "messages"), "messages")), "messages")


def _ultrachat(row: Row) -> Iterator[Record]:
    said = items(row, "data")
    if not all(isinstance(turn, str) and turn.strip() for turn in said):
        raise RowError("empty turn", f"'data' must hold texts of user and assistant in turn, not {short(said)}")
    yield answered([(user, assistant)[number % 2](turn) for number, turn in enumerate(said)], "data")


def _baize(row: Row) -> Iterator[Record]:
    """A transcript with `[|Human|]` and `[|AI|]`. Before the first stands a preamble; the last is often empty."""
    before, *parts = _BAIZE_TURN.split(text(row, "input"))
    said = [(who, words.strip()) for who, words in zip(parts[::2], parts[1::2], strict=True)]
    while said and not said[-1][1]:
        said.pop()
    if not all(words for _, words in said):
        raise RowError("empty turn", f"a turn of 'input' has no text ({short(before)} …)")
    yield answered([(user if who == "Human" else assistant)(words) for who, words in said], "input")


def _mt_bench(row: Row) -> Iterator[Record]:
    """The first turn alone: the later ones answer what a model says."""
    first = items(row, "turns")[0]
    if not isinstance(first, str) or not first.strip():
        raise RowError("empty turn", f"the first of 'turns' is {short(first)}")
    reference = row.get("reference")
    gold = reference[0] if isinstance(reference, list) and reference and isinstance(reference[0], str) else None
    yield Record([user(first)], reference=gold)


GOLD: tuple[Use, ...] = ("demonstrations", "problems")
FORMATS = (
    Format("prompt-response", "prompt and answer", _prompt_response, GOLD, "prompt response|completion", "system"),
    Format("alpaca", "Alpaca, BELLE, COIG", _alpaca, GOLD, "instruction output", "input history system"),
    Format("dolly", "Dolly", _dolly, GOLD, "instruction response", "context history system"),
    Format("self-instruct", "Self-Instruct's seed tasks", _self_instruct, GOLD, "instruction instances"),
    Format("sharegpt", "ShareGPT", _sharegpt, GOLD, "conversations", "system"),
    Format("messages", "OpenAI, UltraChat 200k", _messages, GOLD, "messages", "system"),
    Format("ultrachat", "UltraChat", _ultrachat, GOLD, "data", fits=lambda row: isinstance(row["data"], list)),
    Format("baize", "Baize", _baize, GOLD, "input", fits=lambda row: "[|Human|]" in str(row["input"])),
    Format("mt-bench", "MT-Bench", _mt_bench, ("prompts",), "turns", "reference"),
)
