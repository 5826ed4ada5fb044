"""One message of a conversation, in any dialect: role, content, weight and reasoning."""

from collections.abc import Mapping
from typing import Any

from data.formats.record import ContentError, Message, RowError, found, is_missing, short

Turn = Mapping[str, Any]

ROLE_KEYS, TEXT_KEYS = ("role", "from"), ("content", "value")
ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
ROLES |= {"developer": "system", "prompter": "user"}
ROLES |= dict.fromkeys(("model", "bot", "ai", "chatgpt", "chatbot", "bing", "bard"), "assistant")
TOOL_ROLES = {"tool", "observation", "function", "function_call", "function_response", "tool_call", "tool_calls"}
TOOL_ROLES |= {"tool_response", "tool_result", "ipython", "environment"}
CALLS = ("tool_calls", "function_call")
NO_TOOLS = "No flow trains tool use; remove the row."
REASONING = ("reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "train", "training", "loss")  # the same setting in OpenAI, Axolotl and ms-swift
TEXT_PARTS, THOUGHT_PARTS = ("text", "input_text", "output_text", None), ("thinking", "reasoning")


def plain(turn: Any, at: str) -> Message:
    """A message as `{"role": …, "content": …}`.

    Args:
        at: its place, for error messages.

    Raises:
        RowError: it is not a message, has no text or an unknown role, is a tool turn, or calls a tool.
    """
    if not isinstance(turn, Mapping):
        raise RowError("not a message", f"{at} is {short(turn)}. Each must be an object with 'role' and 'content'.")
    role, key = role_name(turn), next((key for key in ROLE_KEYS if key in turn), "role")
    if role in TOOL_ROLES:
        raise RowError("tool turn", f"{at} is a tool turn ({found(turn, key)}). {NO_TOOLS}")
    if role not in ROLES:
        known = ", ".join(map(repr, ROLES))
        raise RowError("unknown role", f"{at} has an unknown {key!r} ({found(turn, key)}). Known roles: {known}.")
    if call := next((call for call in CALLS if turn.get(call) and not is_missing(turn[call])), None):
        raise RowError("tool call", f"{at} calls a tool ({found(turn, call)}). {NO_TOOLS}")
    return {"role": ROLES[role], "content": content(turn, at)}


def role_name(turn: Turn) -> str:
    """The message's role in lower case; empty if it has none."""
    given = next((turn[key] for key in ROLE_KEYS if turn.get(key) is not None), None)
    return given.strip().lower() if isinstance(given, str) else ""


def is_assistant(turn: Turn) -> bool:
    return ROLES.get(role_name(turn)) == "assistant"


def content(turn: Turn, at: str) -> str:
    """The text of a message. Several text parts are joined by newlines, as vLLM does.

    Raises:
        RowError: there is no content, or a part is not text.
    """
    key = next((key for key in TEXT_KEYS if turn.get(key) is not None), None)
    if key is None:
        key = "value" if "from" in turn and "content" not in turn else "content"
        raise RowError("null content" if key in turn else "empty turn", f"{at}: no {key!r} ({found(turn, key)})")
    whole = turn[key] if isinstance(turn[key], str) else "\n".join(_texts(turn, key, at))
    if not whole.strip():
        raise RowError("empty turn", f"{at}: no {key!r} ({found(turn, key)})")
    return whole


def _texts(turn: Turn, key: str, at: str) -> list[str]:
    said = [part for part in parts(turn) if kind(part) not in THOUGHT_PARTS]
    for part in said:
        if kind(part) not in TEXT_PARTS:
            raise RowError(
                f"part that is no text: {short(kind(part))}",
                f"{at}: a part of its {key!r} is of type {short(kind(part))}. Only text can be used; remove the row.",
            )
        if not isinstance(part.get("text"), str):
            raise RowError("empty turn", f"{at}: a part of its {key!r} has no text ({found(turn, key)})")
    return [part["text"] for part in said]


def parts(turn: Turn) -> list[Turn]:
    """The parts of a message's content; none if it is a text."""
    value = next((turn[key] for key in TEXT_KEYS if turn.get(key) is not None), None)
    values = [] if isinstance(value, str) or value is None else value if isinstance(value, list) else [value]
    return [part if isinstance(part, Mapping) else {"text": part} for part in values]


def kind(part: Turn) -> str | None:
    """The type of a part; None if it is a text without a type."""
    named = part.get("type")
    if isinstance(named, str) or "text" in part:
        return named if isinstance(named, str) else None
    return next((str(key) for key, value in part.items() if key != "type" and value is not None), None)


def thought(turn: Turn) -> str:
    """The assistant's reasoning before an answer; empty if the message has none."""
    if not is_assistant(turn):
        return ""
    own = [turn.get(key) for key in REASONING]
    own += [part.get(str(kind(part))) or part.get("text") for part in parts(turn) if kind(part) in THOUGHT_PARTS]
    return next((said for said in own if isinstance(said, str) and said.strip()), "")


def is_learned(turn: Any, at: str) -> bool:
    """Whether a message is to be learned, by its weight if it has one.

    Raises:
        ContentError: its weight is neither 0 nor 1.
    """
    if not isinstance(turn, Mapping) or not is_assistant(turn):
        return True
    weights = {key: turn[key] for key in WEIGHTS if not is_missing(turn.get(key))}
    if key := next((key for key, weight in weights.items() if weight not in (0, 1)), None):
        raise ContentError("unknown weight", f"{at} has the {key} {short(weights[key])}. It must be 0 or 1")
    return all(weights.values())
