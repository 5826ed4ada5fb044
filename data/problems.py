"""Problems from a user's file of JSON rows, GSM8K's `{"question": …, "answer": …}` and two shapes of SFT data.

Each row has one of the shapes `{question, answer}`, `{prompt, response}` and `{messages: [{role, content}, …]}`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.json_rows import DataFileError, Message, Shape, chat_messages, json_rows, nearest_shape, short, text_field
from data.rows import Problem, Split, problem_id

QUESTION, ANSWER = "question", "answer"
PROMPT, RESPONSE = "prompt", "response"
MESSAGES = "messages"
SHAPES: tuple[Shape, ...] = ((QUESTION, ANSWER), (PROMPT, RESPONSE), (MESSAGES,))
WORKED_EXAMPLE = f"Every problem needs {QUESTION!r} and {ANSWER!r} as text"
NEEDS = (
    f"{WORKED_EXAMPLE}, or {PROMPT!r} and {RESPONSE!r} as text, or {MESSAGES!r} that end with the user's turn "
    f"and the assistant's."
)
VALIDATION_SHARE, TEST_SHARE = 10, 10


class ProblemFileError(DataFileError):
    """A problem file cannot be used; the message names file, line and field."""


@dataclass
class ProblemFile:
    """What reading one file came to."""

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0


def read_problems(
    path: Path, split: Split | None, has_answer: Callable[[str], bool] | None, limit: int | None = None
) -> ProblemFile:
    """Read a problem file. A prompt that was there before is counted and kept once.

    Args:
        path: JSONL, or a `.json` file that holds one array; each row has one of the three shapes above.
        split: the split of all its problems, or None to split by the hash of the prompt, 80/10/10.
        has_answer: whether a reference holds an answer that the reward can read: a reference ends in `#### n` or is
            the bare answer. None if no reward reads it, as in SFT, where the gold response suffices.
        limit: keep at most this many problems.

    Raises:
        ProblemFileError: missing, empty or malformed file; a row of none of the shapes, or without the answer required.
    """
    result = ProblemFile()
    seen: set[str] = set()
    for where, row in json_rows(path, ProblemFileError):
        result.rows += 1
        problem = _problem(row, path, where, split)
        reference = problem.reference or ""
        if has_answer is not None and not has_answer(reference):
            raise ProblemFileError(
                f"{path}, {where}: the {nearest_shape(row, SHAPES)[-1]!r} {short(reference)} holds no final answer. "
                f"Write it bare, or end the text in '#### <answer>'."
            )
        if problem.id in seen:
            result.duplicates += 1
            continue
        seen.add(problem.id)
        if limit is None or len(result.problems) < limit:
            result.problems.append(problem)
    if not result.rows:
        raise ProblemFileError(f"{path} is empty. Give a JSONL file with one {QUESTION!r}/{ANSWER!r} object per line.")
    return result


def split_of(identity: str) -> Split:
    """Split of a problem by the hash of its prompt alone, so it stays the same when rows are added."""
    bucket = int(identity, 16) % 100
    if bucket < VALIDATION_SHARE:
        return "validation"
    return "test" if bucket < VALIDATION_SHARE + TEST_SHARE else "train"


def read_few_shot(path: Path) -> list[Message]:
    """Worked examples to put in front of every problem, as alternating user and assistant turns.

    Raises:
        ProblemFileError: missing, empty or malformed file; a row without question or answer.
    """
    turns: list[Message] = []
    for where, row in json_rows(path, ProblemFileError):
        question, answer = _texts(row, (QUESTION, ANSWER), f"{path}, {where}", f"{WORKED_EXAMPLE}.")
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    if not turns:
        raise ProblemFileError(f"{path} is empty. Give a JSONL file with worked {QUESTION!r}/{ANSWER!r} examples.")
    return turns


def with_prefix(problem: Problem, turns: list[Message]) -> Problem:
    """The problem with few-shot turns in front, but after a system message. Its id stays that of the question alone."""
    start = 1 if problem.messages[0]["role"] == "system" else 0
    return replace(problem, messages=[*problem.messages[:start], *turns, *problem.messages[start:]])


def _problem(row: dict[str, Any], path: Path, where: str, split: Split | None) -> Problem:
    at = f"{path}, {where}"
    shape = nearest_shape(row, SHAPES)
    if shape == (MESSAGES,):
        messages, response = _conversation(row[MESSAGES], at)
    else:
        prompt, response = _texts(row, shape, at, NEEDS)
        messages = [{"role": "user", "content": prompt}]
    identity = problem_id(messages)
    return Problem(identity, messages, response, response, path.name, split or split_of(identity))


def _texts(row: dict[str, Any], shape: Shape, at: str, needs: str) -> tuple[str, str]:
    prompt, response = shape
    answer = row.get(response)
    if response == ANSWER and isinstance(answer, int | float) and not isinstance(answer, bool):
        row = row | {ANSWER: str(answer)}
    return (
        text_field(row, prompt, at, needs, ProblemFileError),
        text_field(row, response, at, needs, ProblemFileError),
    )


def _conversation(value: Any, at: str) -> tuple[list[Message], str]:
    messages = chat_messages(value, MESSAGES, at, ProblemFileError)
    roles = [message["role"] for message in messages[-2:]]
    if roles != ["user", "assistant"]:
        raise ProblemFileError(
            f"{at}: {MESSAGES!r} ends in {' → '.join(roles)}. It must end in a turn of the user and the assistant's "
            f"response to it; cut off what follows, or remove the row."
        )
    return messages[:-1], messages[-1]["content"]
