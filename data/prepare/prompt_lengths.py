"""Prompts that leave no room for an answer: refused, dropped or cut, as configured, and counted."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from data.chat_template import naming
from data.errors import AutodidactError
from data.formats import Message
from data.prepare.fitting import cut_from_left
from data.prepare.reading import Tally
from data.render import check_room, completion_token_ids, prompt_token_ids
from data.rows import Problem, problem_id

TOO_LONG = "prompt_too_long"


class VocabularyError(AutodidactError):
    """A token that the tokenizer has and the model does not."""

    def __init__(self, whose: str, token: str, token_id: int, embeddings: int) -> None:
        super().__init__(
            f"{whose} token {token!r} with the id {token_id:,}, and the model has embeddings for {embeddings:,} "
            "tokens.",
            "Tokens were added to the tokenizer but not to the model.",
            "Resize the model's embeddings (resize_token_embeddings) and save both, or give the tokenizer that belongs "
            "to the model.",
        )


@dataclass(frozen=True)
class PolicyTokenizer:
    """A policy's tokenizer with its chat template, and the policy's context length and vocabulary size."""

    tokenizer: Any
    context: int
    embeddings: int

    def token_ids(self, messages: Sequence[Message], place: str) -> list[int]:
        """The token ids of a prompt as the policy will see it.

        Raises:
            TemplateError, VocabularyError: the prompt at `place` cannot be rendered or has tokens the model lacks.
        """
        with naming(place):
            ids = prompt_token_ids(self.tokenizer, messages)
        if (highest := max(ids, default=0)) >= self.embeddings:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise VocabularyError(f"{place}: the prompt has", token, highest, self.embeddings)
        return ids


@dataclass(frozen=True)
class PromptLengths:
    """Checks whether the prompts of a loop leave room for an answer, and handles those that do not.

    A prompt has to leave room for the longest answer. A training prompt that is not answered, as in SFT, has to leave
    room for its gold answer; `refuse` lets it pass, since the stage that makes training rows counts rows that are too
    long.

    Attributes:
        reads: the policy's tokenizer.
        context: maximum tokens of a prompt and its answer in the engine.
        longest_row: maximum tokens of a training row whose prompt is not answered.
        max_tokens: maximum tokens of an answer.
        answered: the splits whose prompts the policy answers.
    """

    reads: PolicyTokenizer
    context: int
    longest_row: int
    max_tokens: int
    answered: Collection[str]
    too_long: Literal["refuse", "drop", "cut"]

    def fit(self, problem: Problem, prompted: Callable[[Problem], Problem], tally: Tally) -> Problem | None:
        """The problem, cut if its prompt is too long, or None if such prompts are dropped; both are counted.

        Args:
            prompted: adds the loop's system message and few-shot turns, which are never cut.
        """
        if self.too_long == "refuse":
            return problem
        room = self._room(problem)

        def length_of(messages: list[Message]) -> int:
            return self._length(prompted(replace(problem, messages=messages)))

        if length_of(problem.messages) <= room:
            return problem
        cut = cut_from_left(problem.messages, room, length_of) if self.too_long == "cut" else None
        if cut is None:
            tally.drop(TOO_LONG, f"a prompt of {problem.source}")
            return None
        tally.cut += 1
        return replace(problem, id=problem_id(cut), messages=cut)

    def check(self, problem: Problem) -> None:
        """Refuse a finished prompt that cannot be rendered, or that is answered and leaves no room for it.

        Raises:
            PromptTooLongError: names the problem and the three lengths.
            TemplateError: names the problem.
        """
        length = self._length(problem)
        if problem.split in self.answered:
            check_room(length, self.max_tokens, self.context, problem.id)

    def _room(self, problem: Problem) -> int:
        if problem.split not in self.answered:
            return self.longest_row - len(completion_token_ids(self.reads.tokenizer, problem.response or ""))
        return self.context - self.max_tokens

    def _length(self, problem: Problem) -> int:
        return len(self.reads.token_ids(problem.messages, f"Problem {problem.id} of {problem.source}"))
