"""Formats of preference data: a prompt with a better and a worse answer."""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations, takewhile
from typing import Any

from data.formats.chat import answered, conversation, ending_in_the_user, messages_in, said, turns, with_system
from data.formats.instructions import instructed
from data.formats.message import is_assistant
from data.formats.record import (
    Format,
    LeftOutError,
    Message,
    Record,
    Row,
    RowError,
    Use,
    assistant,
    found,
    short,
    text,
    user,
)

SIDES = ("chosen", "rejected")
SHP_RATIO = 2.0  # Ethayarajh et al. (2022) recommend training on pairs whose scores differ by at least this factor
_HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def _prompted(row: Row) -> Iterator[Record]:
    yield _pair(row, "prompt", said(row, "prompt", "user"))


def _sharegpt(row: Row) -> Iterator[Record]:
    yield _pair(row, "conversations", said(row, "conversations", "user"))


def _axolotl(row: Row) -> Iterator[Record]:
    yield _pair(row, "messages", said(row, "messages", "user"))


def _alpaca(row: Row) -> Iterator[Record]:
    yield _pair({**row, "system": None}, "instruction", instructed(row))


def _openai(row: Row) -> Iterator[Record]:
    """OpenAI's preference fine-tuning: the prompt is nested in `input`."""
    given = row["input"]
    if not isinstance(given, Mapping):
        raise RowError("no messages", f"'input' must hold 'messages' ({found(row, 'input')})")
    prompt = turns(messages_in(given, "messages"), "input.messages")
    sides = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    yield _pair({**sides, "system": given.get("system")}, "input.messages", prompt)


def _implicit(row: Row) -> Iterator[Record]:
    """TRL's implicit prompt: both sides are complete conversations, and the prompt is their common beginning."""
    sides = [turns(messages_in(row, name), name) for name in ("chosen", "rejected")]
    if sides[0][:-1] != sides[1][:-1]:
        raise LeftOutError("different prompts", "'chosen' and 'rejected' differ before the last answer")
    if len(sides[0]) < 2:
        raise RowError("no prompt", "'chosen' and 'rejected' hold an answer and no prompt before it.")
    messages = ending_in_the_user(with_system(row, sides[0][:-1]), "chosen")
    chosen, rejected = (_answer(side[-1:], "prompt", name) for side, name in zip(sides, SIDES, strict=True))
    yield Record(messages, chosen, rejected)


def _pair(row: Row, name: str, asked: list[Message]) -> Record:
    """Each side is a text, a message or a list of them. Both may start with the prompt's turns, or with more turns."""
    chosen, rejected = (said(row, side, "assistant") for side in SIDES)
    shared = _shared(asked, chosen, rejected)
    messages = ending_in_the_user(with_system(row, shared or asked), name)
    start = len(shared)
    return Record(messages, _answer(chosen[start:], name, "chosen"), _answer(rejected[start:], name, "rejected"))


def _shared(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> list[Message]:
    """The turns that both sides share at the start, if they include the prompt: they are then the complete prompt."""
    both = takewhile(lambda turns: turns[0] == turns[1], zip(chosen[:-1], rejected[:-1], strict=False))
    shared = [turn for turn, _ in both]
    said = [turn["content"].split() for turn in shared]
    return shared if all(turn["content"].split() in said for turn in prompt) else []


def _answer(messages: list[Message], prompt: str, name: str) -> str:
    roles = [turn["role"] for turn in messages]
    if roles != ["assistant"]:
        raise RowError(
            "not one answer",
            f"besides the prompt's turns, {name!r} holds {' → '.join(roles)}. It must hold exactly one assistant "
            f"message. Move the turns before it into {prompt!r}, or remove the row.",
        )
    return messages[0]["content"]


def _hh(row: Row) -> Iterator[Record]:
    """Two complete transcripts, equal up to the last answer (Bai et al. 2022, arXiv 2204.05862)."""
    chosen, rejected = (_transcript(row, name) for name in SIDES)
    if chosen[:-1] != rejected[:-1]:
        raise LeftOutError("different prompts", "'chosen' and 'rejected' differ before the last answer")
    if chosen[-2]["role"] != "user":
        raise RowError("no answer at the end", "the last answer of 'chosen' does not follow a turn of the human")
    yield Record(chosen[:-1], chosen[-1]["content"], rejected[-1]["content"])


def _transcript(row: Row, name: str) -> list[Message]:
    before, *parts = _HH_TURN.split(text(row, name))
    said = [
        (user if who == "Human" else assistant)(words.strip())
        for who, words in zip(parts[::2], parts[1::2], strict=True)
    ]
    if before.strip() or len(said) < 2 or said[-1]["role"] != "assistant":
        raise RowError(
            "no transcript", f"{name!r} must be a transcript of 'Human:' and 'Assistant:' that ends in an answer"
        )
    if not all(turn["content"] for turn in said):
        raise RowError("empty turn", f"a turn of {name!r} has no text")
    return said


def _shp(row: Row) -> Iterator[Record]:
    """Two comments on a post, `labels` 1 if A has the higher score; pairs with close scores are left out."""
    post = text(row, "history")
    a, b = text(row, "human_ref_A"), text(row, "human_ref_B")
    if row.get("labels") not in (0, 1):
        raise RowError("no labels", f"'labels' must be 0 or 1 ({found(row, 'labels')})")
    ratio = row.get("score_ratio")
    if isinstance(ratio, int | float) and ratio < SHP_RATIO:
        raise LeftOutError("scores too near", f"'score_ratio' is {ratio}, below {SHP_RATIO}")
    better, worse = (a, b) if row["labels"] == 1 else (b, a)
    yield Record([user(post)], better, worse)


def _stack_exchange(row: Row) -> Iterator[Record]:
    asked, better, worse = (text(row, name) for name in ("question", "response_j", "response_k"))
    # The wording of TRL's StackLLaMA, which the data set was made for.
    yield Record([user(f"Question: {asked}\n\nAnswer: ")], better, worse)


def _oasst(row: Row) -> Iterator[Record]:
    """A tree of messages: of every two ranked answers to a message, the better is preferred (arXiv 2304.07327)."""
    pairs = list(_branches(row["prompt"], []))
    if not pairs:
        raise LeftOutError("no ranked answers", "the tree holds no two answers to one message with a 'rank' each")
    yield from pairs


def _branches(node: Any, before: list[Message]) -> Iterator[Record]:
    if not isinstance(node, dict):
        raise RowError("not a message", f"a message of the tree is {short(node)}, not an object")
    role = {"prompter": "user", "assistant": "assistant"}.get(str(node.get("role")))
    if role is None:
        raise RowError("unknown role", f"a message of the tree has an unknown 'role' ({found(node, 'role')})")
    messages = [*before, {"role": role, "content": text(node, "text")}]
    replies = node.get("replies") or []
    if not isinstance(replies, list):
        raise RowError("not a message", f"the 'replies' of a message are {short(replies)}, not a list")
    if role == "user":
        ranked = [reply for reply in replies if isinstance(reply, dict) and isinstance(reply.get("rank"), int)]
        for better, worse in combinations(sorted(ranked, key=lambda reply: reply["rank"]), 2):
            yield Record(messages, text(better, "text"), text(worse, "text"))
    for reply in replies:
        yield from _branches(reply, messages)


def _best_path(row: Row) -> Iterator[Record]:
    """The tree's conversation of best-ranked answers, as one demonstration."""
    messages: list[Message] = []
    node = row["prompt"]
    if not isinstance(node, dict) or not node:
        raise RowError("not a message", f"'prompt' is {short(node)}, not the first message of a tree")
    while node:
        role = {"prompter": "user", "assistant": "assistant"}.get(str(node.get("role")))
        if role is None:
            raise RowError("unknown role", f"a message of the tree has an unknown 'role' ({found(node, 'role')})")
        messages.append({"role": role, "content": text(node, "text")})
        replies = [reply for reply in node.get("replies") or [] if isinstance(reply, dict)]
        node = min(replies, key=_rank, default=None)
    if messages[-1]["role"] == "user":
        messages.pop()
    yield answered(messages, "prompt")


def _rank(reply: dict[str, Any]) -> float:
    """The reply's rank among replies to the same message, 0 is best; a single reply has no rank."""
    rank = reply.get("rank")
    return rank if isinstance(rank, int) else 0


def _is_tree(row: Row) -> bool:
    return isinstance(row["prompt"], dict) and "text" in row["prompt"]


def _are_transcripts(row: Row) -> bool:
    return all("Human:" in str(row[name]) for name in SIDES)


def _are_conversations(row: Row) -> bool:
    return all(isinstance(conversation(row[name]), list) and len(conversation(row[name])) > 1 for name in SIDES)


def _has_prompt(row: Row) -> bool:
    """Whether the messages are the prompt rather than one side's complete conversation, which may also be present."""
    held = conversation(row["messages"])
    last = held[-1] if isinstance(held, list) and held else None
    return not (isinstance(last, Mapping) and is_assistant(last))


PAIRS: tuple[Use, ...] = ("pairs", "demonstrations", "prompts")
FORMATS = (
    Format("preference", "prompt and two answers", _prompted, PAIRS, "prompt chosen rejected", "system"),
    Format("sharegpt-preference", "ShareGPT", _sharegpt, PAIRS, "conversations chosen rejected", "system"),
    Format("axolotl-preference", "Axolotl", _axolotl, PAIRS, "messages chosen rejected", "system", _has_prompt),
    Format("alpaca-preference", "Alpaca", _alpaca, PAIRS, "instruction chosen rejected", "input history system"),
    Format(
        "openai-preference",
        "OpenAI",
        _openai,
        PAIRS,
        "input preferred_output non_preferred_output",
    ),
    Format(
        "implicit-preference",
        "TRL's implicit prompt",
        _implicit,
        PAIRS,
        "chosen rejected",
        "system",
        _are_conversations,
    ),
    Format("hh-rlhf", "Anthropic's transcripts", _hh, PAIRS, "chosen rejected", fits=_are_transcripts),
    Format("shp", "Stanford's", _shp, PAIRS, "history human_ref_A human_ref_B labels", "score_ratio"),
    Format("stack-exchange", "stack-exchange-paired", _stack_exchange, PAIRS, "question response_j response_k"),
    Format("oasst", "OpenAssistant", _oasst, PAIRS, "message_tree_id prompt", fits=_is_tree, demonstrate=_best_path),
)
