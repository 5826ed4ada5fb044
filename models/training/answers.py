"""Rows whose answers are measured, as token ids: gold answers and pairs, rendered as in training."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.render import answer_token_ids, completion_token_ids, prompt_token_ids
from data.rows import Pair, Problem
from data.storage import read_rows


@dataclass(frozen=True)
class Answers:
    """Token ids of a prompt and of one gold answer to it, or of a chosen and a rejected one with the pair's label."""

    problem_id: str
    index: int
    prompt: list[int]
    answers: tuple[list[int], ...]
    label: float | None = None

    @property
    def longest(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.prompt) + max(map(len, self.answers))


def gold_answers(tokenizer: Any, problems: Path, context: int) -> Iterator[Answers]:
    """The gold answers of a file of problems, without rows longer than the context and problems without an answer.

    The index counts the answers to one prompt, so it does not depend on a policy's context.
    """
    seen = Counter[str]()
    for problem in read_rows(Problem, problems):
        if problem.response is None:
            continue
        answer = completion_token_ids(tokenizer, problem.response)
        row = Answers(problem.id, seen[problem.id], prompt_token_ids(tokenizer, problem.messages), (answer,))
        seen[problem.id] += 1
        if row.longest <= context:
            yield row


def pair_answers(tokenizer: Any, pairs: Path, context: int) -> Iterator[Answers]:
    """The answers of a file of pairs, chosen before rejected, without pairs longer than the context."""
    for pair in read_rows(Pair, pairs):
        answers = (
            answer_token_ids(tokenizer, pair.chosen, pair.chosen_token_ids),
            answer_token_ids(tokenizer, pair.rejected, pair.rejected_token_ids),
        )
        row = Answers(pair.problem_id, pair.index, prompt_token_ids(tokenizer, pair.messages), answers, pair.label)
        if row.longest <= context:
            yield row
