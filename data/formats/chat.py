"""Lists of messages as prompts, answers and conversations, and which message keys are not read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data.formats.message import (
    REASONING,
    ROLE_KEYS,
    ROLES,
    TEXT_KEYS,
    THOUGHT_PARTS,
    WEIGHTS,
    Turn,
    content,
    is_learned,
    kind,
    parts,
    plain,
    role_name,
    thought,
)
from data.formats.record import LeftOutError, Message, Record, Row, RowError, is_missing, optional_text, short, text
from data.formats.written import AS_JSON, is_python, written_down

A_LIST = "It must be a non-empty list."
NESTED = "messages"
# Columns of a prompt and of its gold answer, which may be messages.
PROMPTS, GOLD = ("prompt", "question", "problem", "query"), ("completion", "response", "chosen", "preferred_output")


def conversation(value: Any) -> Any:
    """The messages in a value. One message becomes a list of one; a table of columns, as `datasets` once wrote it,
    becomes rows; a text that holds a list of messages as JSON, as in a CSV field, becomes that list.
    """
    if isinstance(value, str):
        return written_down(value)
    if not isinstance(value, Mapping) or not value:
        return value
    columns = list(value.values())
    if all(isinstance(column, list) for column in columns) and len({*map(len, columns)}) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return [value]


def messages_in(row: Row, name: str) -> list[Any]:
    """The messages in a field, unchanged.

    Raises:
        RowError: the field is absent, not a list, or empty.
    """
    values = conversation(row.get(name))
    if not isinstance(values, list) or not values:
        wanted = AS_JSON if isinstance(values, str) and is_python(values) else A_LIST
        raise RowError(f"no {name}", f"{name!r} is {short(values)}. {wanted}")
    return values


def turns(values: Sequence[Any], name: str) -> list[Message]:
    """The messages of a list, as `{"role": …, "content": …}`; `unread_keys` finds other keys they carry.

    Raises:
        RowError: a message cannot be read (see `data.formats.message.plain`), or a system message is not first.
    """
    messages: list[Message] = []
    for number, turn in enumerate(values, start=1):
        message = plain(turn, at := f"turn {number} of {name!r}")
        if message["role"] == "system" and messages:
            raise RowError("late system turn", f"{at} is a system message. Only the first turn may be one.")
        messages.append(message)
    return messages


def said(row: Row, name: str, role: str) -> list[Message]:
    """The messages in a field; a bare text, or a list of its parts, becomes one message of `role`."""
    value = conversation(row.get(name))
    if isinstance(value, str) and is_python(value):
        raise RowError(f"messages in Python's notation in {name}", f"{name!r} is {short(value)}. {AS_JSON}")
    if value and isinstance(value, list) and all(map(_is_part, value)):
        value = [{"role": role, "content": value}]
    return turns(value, name) if value and isinstance(value, list) else [{"role": role, "content": text(row, name)}]


def _is_part(value: Any) -> bool:
    """Whether a value is a part of a message rather than a message."""
    return isinstance(value, Mapping) and "type" in value and not any(key in value for key in ROLE_KEYS)


def asked(row: Row, name: str) -> list[Message]:
    """The prompt in a field (a text, a message or a list of them), after the row's `system` message.

    Raises:
        RowError: the prompt is missing or does not end in a user turn.
    """
    return ending_in_the_user(with_system(row, said(row, name, "user")), name)


def ending_in_the_user(messages: list[Message], name: str) -> list[Message]:
    """The messages of a prompt.

    Raises:
        RowError: the last message is not the user's.
    """
    if messages[-1]["role"] != "user":
        raise RowError(
            "prompt ends in an answer",
            f"the prompt in {name!r} ends in a turn of the {messages[-1]['role']}. It must end in a user turn, "
            f"which the answer follows. Correct or remove the row.",
        )
    return messages


def ends_in_the_user(row: Row, name: str) -> bool:
    """Whether the last message in a field is the user's."""
    last = messages_in(row, name)[-1]
    return isinstance(last, Mapping) and ROLES.get(role_name(last)) == "user"


def reply(row: Row, name: str) -> str:
    """The answer in a field: a text or one assistant message.

    Raises:
        RowError: there is no message, or more than one.
    """
    messages = said(row, name, "assistant")
    if [turn["role"] for turn in messages] != ["assistant"]:
        roles = " → ".join(turn["role"] for turn in messages)
        raise RowError("not one answer", f"{name!r} holds {roles}. It must hold exactly one assistant message.")
    return messages[0]["content"]


def with_system(row: Row, messages: list[Message]) -> list[Message]:
    """The messages after the row's `system` message, if it has one."""
    said = optional_text(row, "system")
    if not said:
        return messages
    if messages[0]["role"] == "system":
        raise RowError("two system turns", "'system' and the first turn are both system messages. Keep one.")
    return [{"role": "system", "content": said}, *messages]


def demonstrated(row: Row, name: str) -> Iterator[Record]:
    """A conversation as its prompt and the last answer to learn from; everything after that answer is cut off.

    Raises:
        RowError: it does not end in a user turn and the assistant's answer to it.
        LeftOutError: all its answers have weight 0.
    """
    values = messages_in(row, name)
    messages = turns(values, name)
    learned = [is_learned(turn, f"turn {number} of {name!r}") for number, turn in enumerate(values, start=1)]
    while messages[-1]["role"] == "assistant" and not learned[len(messages) - 1]:
        del messages[max(len(messages) - 2, 0) :]  # with the question
        if not any(turn["role"] == "assistant" for turn in messages):
            raise LeftOutError("weight 0", f"no answer in {name!r} is to be learned: each has weight 0")
    unweighted = not all(learned[: len(messages)])
    yield answered(with_system(row, messages), name, unweighted)


def refuse_unlearned(row: Row, names: Sequence[str]) -> None:
    """Leave out a row whose gold answer, a message in one of these fields, has weight 0.

    Raises:
        LeftOutError: it has.
    """
    for name in (name for name in GOLD if name in names):
        values = conversation(row[name])
        if isinstance(values, list) and values and not is_learned(values[-1], f"the last turn of {name!r}"):
            raise LeftOutError("weight 0", f"the answer in {name!r} is not to be learned: it has weight 0")


def is_prompt_unlearned(row: Row, names: Sequence[str]) -> bool:
    """Whether an answer in the messages of a prompt, if one of these fields holds it, has weight 0."""
    asked = [(name, turn) for name in PROMPTS if name in names for turn in _messages(row.get(name))]
    return not all(is_learned(turn, f"a turn of {name!r}") for name, turn in asked)


def answered(messages: list[Message], name: str, unweighted: bool = False) -> Record:
    """A conversation as its prompt and its last answer.

    Raises:
        RowError: it does not end in a user turn and the assistant's answer to it.
    """
    roles = [message["role"] for message in messages[-2:]]
    if roles != ["user", "assistant"]:
        raise RowError(
            "no answer at the end",
            f"{name!r} ends in {' → '.join(roles)}. It must end in a user turn and the assistant's response to "
            f"it. Cut off what follows, or remove the row.",
        )
    return Record(messages[:-1], response=messages[-1]["content"], unweighted=unweighted)


def prompted(row: Row, name: str) -> Iterator[Record]:
    """A conversation up to the user's last turn."""
    messages = with_system(row, turns(messages_in(row, name), name))
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    if not messages:
        raise RowError("no prompt", f"{name!r} has no user turn.")
    yield Record(messages)


def unread_keys(row: Row, names: Sequence[str], weighed: bool) -> set[str]:
    """The non-empty keys of the messages in these fields that are not read, and those beside nested messages.

    Args:
        weighed: whether weights are read.
    """
    read = {*ROLE_KEYS, *TEXT_KEYS, *(WEIGHTS if weighed else ())}
    messages = [turn for name in names for turn in _messages(row.get(name))]
    unread = {key for turn in messages for key, value in turn.items() if key not in read and _says(key, value)}
    kinds = {kind(part) for turn in messages for part in parts(turn)}
    unread |= {said for said in THOUGHT_PARTS if said in kinds}
    for inner in _nested(row, names).values():
        unread |= unread_keys(inner, [NESTED], weighed)
        unread |= {key for key, value in inner.items() if key not in (NESTED, "system") and _says(key, value)}
    return unread


def with_reasoning(row: Row, names: Sequence[str]) -> Row:
    """The row with the assistant's reasoning put before its answers in these fields, as `<think>` … `</think>`."""
    changed: dict[str, Any] = {
        name: [_thinking(turn) if isinstance(turn, Mapping) else turn for turn in conversation(row[name])]
        for name in names
        if any(map(thought, _messages(row.get(name))))
    }
    changed |= {name: with_reasoning(inner, [NESTED]) for name, inner in _nested(row, names).items()}
    return {**row, **changed}


def _thinking(turn: Turn) -> Turn:
    key = next((key for key in TEXT_KEYS if turn.get(key)), None)
    if key is None or not thought(turn):
        return turn
    rest = {name: value for name, value in turn.items() if name not in REASONING}
    said = content(turn, "a turn").lstrip()
    opened = "" if said.startswith("<think>") else f"<think>\n{thought(turn).strip()}\n</think>\n\n"
    return rest | {key: opened + said}


def _nested(row: Row, names: Sequence[str]) -> dict[str, Row]:
    """The fields that hold messages one level deeper, as OpenAI's preference rows do."""
    held = {name: row.get(name) for name in names}
    return {name: value for name, value in held.items() if isinstance(value, Mapping) and NESTED in value}


def _messages(value: Any) -> Iterator[Turn]:
    values = conversation(value)
    for turn in values if isinstance(values, list) else ():
        if isinstance(turn, Mapping) and all(any(key in turn for key in keys) for keys in (ROLE_KEYS, TEXT_KEYS)):
            yield turn


def _says(key: str, value: Any) -> bool:
    return not is_missing(value) and value not in ("", [], {}) and not (key in WEIGHTS and value == 1)
