"""Preference pairs from a user's file of JSON rows. Pairs that a policy wrote are made elsewhere.

Each row has one of the shapes

- `{prompt, chosen, rejected}`: each a text, a message `{role, content}` or a list of messages. Both sides may begin
  with the prompt's turns, as in UltraFeedback-binarized.
- `{conversations, chosen, rejected}`: the same with messages `{from, value}`, ShareGPT's as LLaMA-Factory has them.
- `{question, response_j, response_k}`: stack-exchange-paired, where `response_j` is the better one.

A text `system` beside the first two becomes the system message.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from data.json_rows import (
    OPENAI,
    DataFileError,
    Dialect,
    Message,
    Shape,
    chat_messages,
    json_rows,
    nearest_shape,
    text_field,
)
from data.rows import Pair, problem_id

PROMPTED: Shape = ("prompt", "chosen", "rejected")
SHAREGPT: Shape = ("conversations", "chosen", "rejected")
STACK_EXCHANGE: Shape = ("question", "response_j", "response_k")
SHAPES = (PROMPTED, SHAREGPT, STACK_EXCHANGE)
SHAREGPT_MESSAGES = Dialect("from", "value", {"system": "system", "human": "user", "gpt": "assistant"})
NEEDS = (
    f"Every pair needs {'; or '.join(', '.join(map(repr, shape)) for shape in SHAPES)}; none of them empty. "
    f"Fill in what is missing, or remove the row."
)


class PreferenceFileError(DataFileError):
    """A preference file cannot be used; the message names file, line and field."""


@dataclass(frozen=True)
class PairFile:
    """What reading one file came to: `dropped` counts "equal_sides" and "duplicate" where they occurred."""

    pairs: list[Pair]
    rows: int
    dropped: dict[str, int]


def read_pairs(path: Path) -> PairFile:
    """Read a preference file: JSONL, or a `.json` file that holds one array, its rows of the shapes above.

    A pair whose sides differ in white space only is dropped, and so is one whose prompt and sides were there before.

    Raises:
        PreferenceFileError: missing, empty or malformed file; a row of none of the shapes, or without prompt, chosen
            or rejected text; a file all of whose pairs have equal sides.
    """
    pairs: dict[tuple[str, str, str], Pair] = {}
    dropped: Counter[str] = Counter()
    per_prompt: Counter[str] = Counter()
    rows = 0
    for where, row in json_rows(path, PreferenceFileError):
        rows += 1
        messages, chosen, rejected = _pair(row, f"{path}, {where}")
        identity = problem_id(messages)
        key = (identity, chosen, rejected)
        if chosen.split() == rejected.split():
            dropped["equal_sides"] += 1
        elif key in pairs:
            dropped["duplicate"] += 1
        else:
            index = per_prompt[identity]
            pairs[key] = Pair(identity, index, messages, chosen, rejected, None, None, path.name, path.name)
            per_prompt[identity] += 1
    if not rows:
        raise PreferenceFileError(f"{path} is empty. Give a JSONL file with one pair per line. {NEEDS}")
    if not pairs:
        raise PreferenceFileError(
            f"{path}: the two sides are equal in every one of its {rows} rows, so nothing can be learned from it. "
            f"Check that whatever wrote the file did not copy the same response into both fields."
        )
    return PairFile(list(pairs.values()), rows, dict(dropped))


def _pair(row: dict[str, Any], at: str) -> tuple[list[Message], str, str]:
    shape = nearest_shape(row, SHAPES)
    if shape == STACK_EXCHANGE:
        return _stack_exchange(row, at)
    dialect = SHAREGPT_MESSAGES if shape == SHAREGPT else OPENAI
    prompt = _turns(row, shape[0], "user", at, dialect)
    chosen, rejected = (_turns(row, name, "assistant", at, dialect) for name in shape[1:])
    shared = _shared_turns(prompt, chosen, rejected)
    messages = _with_system(row, shared or prompt, at)
    if messages[-1]["role"] != "user":
        raise PreferenceFileError(
            f"{at}: the prompt in {shape[0]!r} ends in a turn of the {messages[-1]['role']}. It must end in one of the "
            f"user, which both sides answer; correct or remove the row."
        )
    start = len(shared)
    return messages, _response(chosen[start:], shape, "chosen", at), _response(rejected[start:], shape, "rejected", at)


def _stack_exchange(row: dict[str, Any], at: str) -> tuple[list[Message], str, str]:
    question, better, worse = (text_field(row, name, at, NEEDS, PreferenceFileError) for name in STACK_EXCHANGE)
    # The wording of TRL's StackLLaMA, for which the data set was made.
    return [{"role": "user", "content": f"Question: {question}\n\nAnswer: "}], better, worse


def _turns(row: dict[str, Any], name: str, role: str, at: str, dialect: Dialect) -> list[Message]:
    value = row.get(name)
    if value and isinstance(value, list | dict):
        return chat_messages([value] if isinstance(value, dict) else value, name, at, PreferenceFileError, dialect)
    return [{"role": role, "content": text_field(row, name, at, NEEDS, PreferenceFileError)}]


def _shared_turns(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """The turns with which both sides begin, if the prompt is among them: they are then the whole prompt."""
    both = takewhile(lambda turns: turns[0] == turns[1], zip(chosen[:-1], rejected[:-1], strict=False))
    shared = [turn for turn, _ in both]
    said = [turn["content"].split() for turn in shared]
    return shared if all(turn["content"].split() in said for turn in prompt) else []


def _with_system(row: dict[str, Any], messages: list[Message], at: str) -> list[Message]:
    if row.get("system") in (None, ""):
        return messages
    system = text_field(row, "system", at, "Make it text, or leave it out.", PreferenceFileError)
    if messages[0]["role"] == "system":
        raise PreferenceFileError(
            f"{at}: 'system' and the first turn of the prompt are both system messages. Keep one."
        )
    return [{"role": "system", "content": system}, *messages]


def _response(turns: list[Message], shape: Shape, name: str, at: str) -> str:
    roles = [turn["role"] for turn in turns]
    if roles != ["assistant"]:
        raise PreferenceFileError(
            f"{at}: besides the prompt's turns, {name!r} holds {' → '.join(roles)}. It must hold exactly one message "
            f"of the assistant; move the turns before it into {shape[0]!r}, or remove the row."
        )
    return turns[0]["content"]
