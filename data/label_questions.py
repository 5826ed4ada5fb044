"""What a model is asked that labels preferences or scores answers directly, and the frame of its replies.

A reply is JSON: first "reasoning", if there is any, then a choice. Its probability is read and not sampled, each
possible reply as a whole with what ends it, so that "1" does not share in "10".
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from data.judge_questions import NOT_OBEYED, conversation, object_of, short_text, shown_safely
from data.labels import VALUES
from data.rows import Problem

VERSION = 1  # of the questions and the replies' frame
CHOICES = ("1", "2")
SCORES = tuple(map(str, VALUES))
_COMPARED = (
    "Which answer to the last turn is better, 1 or 2? What counts is that it is right, helpful and clear, not its "
    "length or its place.\n"
)
_REASONED = 'Reply in JSON: first "reasoning", in short, then "better": 1 or 2.'
_AT_ONCE = 'Reply in JSON: "better": 1 or 2.'
_SCORED = (
    "How good is the answer to the last turn, from 1 to 10? What counts is that it is right, helpful and clear, not "
    'its length.\nReply in JSON: "score": 1 to 10.'
)


def compared(
    problem: Problem, answers: Sequence[str], rubric: str | None, principle: str, reasons: bool
) -> list[dict[str, str]]:
    """The question which of two answers is better, as one user turn.

    Args:
        answers: in the order in which they are shown.
        rubric: what to do, in place of the default. The format of replies stays.
        principle: what to go by besides; empty: nothing.
        reasons: whether the reply reasons first.
    """
    shown = [
        f"<answer {place}>\n{shown_safely(answer)}\n</answer {place}>"
        for place, answer in zip(CHOICES, answers, strict=True)
    ]
    return _turn(problem, [*shown, NOT_OBEYED, *filter(None, [principle]), rubric or _task(reasons)])


def scored(problem: Problem, answer: str, rubric: str | None) -> list[dict[str, str]]:
    """The question how good an answer is, from 1 to 10, as one user turn."""
    return _turn(problem, [f"<answer>\n{shown_safely(answer)}\n</answer>", NOT_OBEYED, rubric or _SCORED])


def _turn(problem: Problem, parts: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": "\n".join([conversation(problem), *parts])}]


def _task(reasons: bool) -> str:
    return _COMPARED + (_REASONED if reasons else _AT_ONCE)


def before_choice(reasoning: str | None) -> str:
    """The beginning of a reply to `compared`, up to the choice. The frame is the one that constrained decoding writes.

    >>> before_choice("2 is wrong.")
    '{"reasoning":"2 is wrong.","better":'
    """
    first = {} if reasoning is None else {"reasoning": reasoning}
    written = json.dumps(first | {"better": 0}, separators=(",", ":"), ensure_ascii=False)
    return written.removesuffix("0}")


BEFORE_SCORE = '{"score":'
END = "}"


def reasoning_schema(max_reasoning: int) -> dict[str, Any]:
    """JSON schema of the reasoning alone."""
    return object_of({"reasoning": short_text(max_reasoning)})


def drawn_principle(principles: Sequence[str], comparison: str, seed: int) -> str:
    """One of some principles, drawn for a comparison (arXiv 2212.08073, section 4.1); empty if there are none."""
    if not principles:
        return ""
    drawn = hashlib.sha256(f"principle/{seed}/{comparison}".encode()).digest()
    return principles[int.from_bytes(drawn[:8], "big") % len(principles)]
