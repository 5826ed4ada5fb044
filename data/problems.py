"""Problems from a user's file: GSM8K-shaped JSONL, `{"question": …, "answer": …}`, one per line."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.rows import Problem, Split, problem_id

QUESTION, ANSWER = "question", "answer"
VALIDATION_SHARE, TEST_SHARE = 10, 10


class ProblemFileError(ValueError):
    """A problem file cannot be used; the message names file, line and field."""


@dataclass
class ProblemFile:
    """What reading one file came to."""

    problems: list[Problem] = field(default_factory=list)
    rows: int = 0
    duplicates: int = 0


def read_problems(
    path: Path, split: Split | None, has_answer: Callable[[str], bool], limit: int | None = None
) -> ProblemFile:
    """Read a problem file. A prompt that was there before is counted and kept once.

    Args:
        path: JSONL with `question` and `answer`; the answer ends in `#### n` or is the bare answer.
        split: the split of all its problems, or None to split by the hash of the prompt, 80/10/10.
        has_answer: whether a reference holds an answer that the reward can read.
        limit: keep at most this many problems.

    Raises:
        ProblemFileError: missing, empty or malformed file; a row without question or answer.
    """
    result = ProblemFile()
    seen: set[str] = set()
    for number, row in _json_lines(path):
        result.rows += 1
        problem = _problem(row, path, number, split)
        if not has_answer(problem.reference or ""):
            raise ProblemFileError(
                f"{path}, line {number}: the {ANSWER!r} {_short(row[ANSWER])} holds no final answer. "
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


def read_few_shot(path: Path) -> list[dict[str, str]]:
    """Worked examples to put in front of every problem, as alternating user and assistant turns.

    Raises:
        ProblemFileError: as for `read_problems`.
    """
    turns = []
    for number, row in _json_lines(path):
        problem = _problem(row, path, number, None)
        turns += [*problem.messages, {"role": "assistant", "content": str(problem.response)}]
    if not turns:
        raise ProblemFileError(f"{path} is empty. Give a JSONL file with worked {QUESTION!r}/{ANSWER!r} examples.")
    return turns


def with_prefix(problem: Problem, turns: list[dict[str, str]]) -> Problem:
    """The problem with few-shot turns in front. Its id stays that of the question alone."""
    return replace(problem, messages=[*turns, *problem.messages])


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise ProblemFileError(f"There is no file {path}. Check the path; it is relative to {Path.cwd()}.")
    with path.open(encoding="utf-8-sig") as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _object(line, path, number)
        except UnicodeDecodeError as error:
            raise ProblemFileError(
                f"{path}, after line {number}: not UTF-8 ({error.reason}). Convert the file to UTF-8."
            ) from None


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_no_constant)
        json.dumps(row, ensure_ascii=False).encode()  # refuses lone surrogates, which JSON can hold and UTF-8 cannot
    except (ValueError, RecursionError) as error:
        raise ProblemFileError(
            f"{path}, line {number}: malformed JSON ({error}). Each line must be one JSON object."
        ) from None
    if not isinstance(row, dict):
        raise ProblemFileError(
            f"{path}, line {number}: {type(row).__name__} is not a JSON object. Each line must be one."
        )
    return row


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _problem(row: dict[str, Any], path: Path, number: int, split: Split | None) -> Problem:
    for key in (QUESTION, ANSWER):
        value = row.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and key == ANSWER:
            row[key] = value = str(value)
        if not isinstance(value, str) or not value.strip():
            found = f"fields {', '.join(map(repr, row)) or 'none'}" if key not in row else f"{key} is {_short(value)}"
            raise ProblemFileError(
                f"{path}, line {number}: no {key!r} ({found}). Every problem needs {QUESTION!r} and {ANSWER!r} as text."
            )
    messages = [{"role": "user", "content": row[QUESTION]}]
    identity = problem_id(messages)
    return Problem(identity, messages, row[ANSWER], row[ANSWER], path.name, split or split_of(identity))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
