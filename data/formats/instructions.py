"""Formats of instructions with one answer, and of conversations."""

import re
from collections.abc import Iterator

from data.formats.chat import answered, asked, demonstrated, ends_in_the_user, prompted, reply, with_system
from data.formats.record import (
    Format,
    Message,
    Record,
    Row,
    RowError,
    Use,
    assistant,
    is_missing,
    items,
    optional_text,
    short,
    text,
    user,
)
from data.formats.values import BARE, LABELS, bare_column

_BAIZE_TURN = re.compile(r"\[\|(Human|AI)\|\]")


def instructed(row: Row, context: str = "input") -> list[Message]:
    """Instruction and context in one turn, on two lines, as LLaMA-Factory joins them, after earlier rounds.

    Raises:
        RowError: there is no instruction, or a round is not a question with an answer.
    """
    rounds: list[Message] = []
    history = row.get("history")
    history = [] if is_missing(history) else history or []
    if not isinstance(history, list):
        raise RowError("bad history", f"'history' is {short(history)}. It must be a list of rounds.")
    for number, said in enumerate(history, start=1):
        if (
            not isinstance(said, list)
            or len(said) != 2
            or not all(isinstance(part, str) and part.strip() for part in said)
        ):
            raise RowError(
                "bad history", f"round {number} of 'history' is {short(said)}. It must be a question and an answer."
            )
        rounds += [user(said[0]), assistant(said[1])]
    asked = "\n".join(filter(None, (text(row, "instruction"), optional_text(row, context))))
    return with_system(row, [*rounds, user(asked)])


def _alpaca(row: Row, answer: str = "output", context: str = "input") -> Iterator[Record]:
    yield Record(instructed(row, context), text(row, answer))


def _dolly(row: Row) -> Iterator[Record]:
    return _alpaca(row, "response", "context")


def _self_instruct(row: Row) -> Iterator[Record]:
    for instance in items(row, "instances"):
        if not isinstance(instance, dict):
            raise RowError("not an instance", f"an item of 'instances' is {short(instance)}, not an object")
        yield from _alpaca({"instruction": row.get("instruction"), **instance})


def _prompt_response(row: Row) -> Iterator[Record]:
    answer = next((name for name in ("response", "completion") if name in row), "response")
    yield Record(asked(row, "prompt"), reply(row, answer))


def _sharegpt(row: Row) -> Iterator[Record]:
    return demonstrated(row, _conversation(row))


def _sharegpt_problem(row: Row) -> Iterator[Record]:
    return _judged(row, _conversation(row))


def _judged(row: Row, name: str) -> Iterator[Record]:
    """A conversation that ends in a question, if the row has the bare answer to it; otherwise a demonstration."""
    return prompted(row, name) if bare_column(row) and ends_in_the_user(row, name) else demonstrated(row, name)


def _sharegpt_prompt(row: Row) -> Iterator[Record]:
    return prompted(row, _conversation(row))


def _conversation(row: Row) -> str:
    return "conversations" if "conversations" in row else "conversation"


def _messages(row: Row) -> Iterator[Record]:
    return demonstrated(row, "messages")


def _messages_problem(row: Row) -> Iterator[Record]:
    return _judged(row, "messages")


def _messages_prompt(row: Row) -> Iterator[Record]:
    return prompted(row, "messages")


def _ultrachat(row: Row) -> Iterator[Record]:
    said = items(row, "data")
    if not all(isinstance(turn, str) and turn.strip() for turn in said):
        raise RowError("empty turn", f"'data' must hold alternating texts of user and assistant, not {short(said)}")
    yield answered([(user, assistant)[number % 2](turn) for number, turn in enumerate(said)], "data")


def _baize(row: Row) -> Iterator[Record]:
    """A transcript with `[|Human|]` and `[|AI|]`. It starts with a preamble, and its last turn is often empty."""
    before, *parts = _BAIZE_TURN.split(text(row, "input"))
    said = [(who, words.strip()) for who, words in zip(parts[::2], parts[1::2], strict=True)]
    while said and not said[-1][1]:
        said.pop()
    if not all(words for _, words in said):
        raise RowError("empty turn", f"a turn of 'input' has no text ({short(before)} …)")
    yield answered([(user if who == "Human" else assistant)(words) for who, words in said], "input")


def _mt_bench(row: Row) -> Iterator[Record]:
    """The first turn only: the later ones reply to a model's answer."""
    first = items(row, "turns")[0]
    if not isinstance(first, str) or not first.strip():
        raise RowError("empty turn", f"the first of 'turns' is {short(first)}")
    reference = row.get("reference")
    gold = reference[0] if isinstance(reference, list) and reference and isinstance(reference[0], str) else None
    yield Record([user(first)], reference=gold)


def _prompt_alone(row: Row) -> Iterator[Record]:
    name = next(name for name in PROMPT_COLUMNS if name in row)
    yield Record(instructed(row) if name == "instruction" else asked(row, name))


def _has_no_answer(row: Row) -> bool:
    return not ANSWER_COLUMNS & {name.lower() for name in row}


PROMPT_COLUMNS = ("prompt", "question", "problem", "instruction", "query")
ANSWER_COLUMNS = {*BARE, "answers", "solution", "generated_solution", "response", "completion", "output"}
ANSWER_COLUMNS |= {"chosen", "rejected"}
GOLD: tuple[Use, ...] = ("demonstrations", "problems", "prompts")
# Whether a person liked the answer, and the reference that a verifier uses instead of it.
BESIDE = " ".join(("system", *LABELS, *BARE))
FORMATS = (
    Format(
        "prompt-response",
        "prompt and answer, KTO",
        _prompt_response,
        GOLD,
        "prompt response|completion",
        BESIDE,
    ),
    Format("alpaca", "Alpaca, BELLE, COIG", _alpaca, GOLD, "instruction output", f"input history {BESIDE}"),
    Format("dolly", "Dolly", _dolly, GOLD, "instruction response", f"context history {BESIDE}"),
    Format("self-instruct", "Self-Instruct's seed tasks", _self_instruct, GOLD, "instruction instances"),
    Format(
        "sharegpt",
        "ShareGPT, LMSYS, WildChat",
        _sharegpt_problem,
        GOLD,
        "conversations|conversation",
        BESIDE,
        demonstrate=_sharegpt,
        ask=_sharegpt_prompt,
    ),
    Format(
        "messages",
        "OpenAI, UltraChat 200k",
        _messages_problem,
        GOLD,
        "messages",
        BESIDE,
        demonstrate=_messages,
        ask=_messages_prompt,
    ),
    Format("ultrachat", "UltraChat", _ultrachat, GOLD, "data", fits=lambda row: isinstance(row["data"], list)),
    Format("baize", "Baize", _baize, GOLD, "input", fits=lambda row: "[|Human|]" in str(row["input"])),
    Format("mt-bench", "MT-Bench", _mt_bench, ("prompts",), "turns", "reference"),
    Format(
        "prompts",
        "prompts alone",
        _prompt_alone,
        ("prompts",),
        "|".join(PROMPT_COLUMNS),
        "input system history",
        _has_no_answer,
    ),
)
