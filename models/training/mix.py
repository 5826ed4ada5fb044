"""Rows of other data that PPO learns beside its answers, so that the policy forgets less: PPO-ptx.

InstructGPT (arXiv 2203.02155, equation 2) adds γ E[log π(x)] over pretraining data to what PPO maximizes. Here the loss
of an update gets γ times the mean negative log-likelihood of all mixed tokens of that update.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data.render import answer_token_ids, prompt_token_ids
from data.rows import Example
from data.storage import read_rows
from models.training.learner import Answer
from models.training.rollout import order

Sum = Callable[[torch.Tensor], list[float]]  # over all processes


class Mix:
    """The rows, in an order that depends on the seed alone; each update takes the next.

    Args:
        rows: how many an update takes, over all processes.
        place: this process's number, and of how many.
    """

    def __init__(self, file: Path, tokenizer: Any, seed: int, rows: int, place: tuple[int, int]) -> None:
        self._examples = [_token_ids(tokenizer, example) for example in read_rows(Example, file)]
        self._seed, self._rows, self._place = seed, rows, place

    def of_update(self, number: int, tokens: float, total: Sum) -> list[Answer]:
        """This process's rows of an update. As answers they have nothing to teach: values and advantages of 0.

        Args:
            number: of the update, from the first step on.
            tokens: by which the update's loss is divided.
        """
        found, count = [], len(self._examples)
        for at in range(number * self._rows + self._place[0], (number + 1) * self._rows, self._place[1]):
            turn, where = divmod(at, count)
            found.append(self._examples[order(self._seed, turn, count)[where]])
        (mixed,) = total(torch.tensor([float(sum(len(ids) for _, ids in found))]))
        return [_as_answer(prompt, ids, tokens / mixed) for prompt, ids in found]


def _token_ids(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """What precedes the tokens to learn, and these. A text has no prompt: its first token is given."""
    if example.messages:
        answer = answer_token_ids(tokenizer, example.completion, example.token_ids)
        return prompt_token_ids(tokenizer, example.messages), answer
    ids: Sequence[int] = example.token_ids or []
    return list(ids[:1]), list(ids[1:])


def _as_answer(prompt: list[int], ids: list[int], weight: float) -> Answer:
    nothing = torch.zeros(len(ids))
    fields = ("old", "reference", "advantages", "values", "returns", "learned")
    return Answer(prompt, ids, nothing, **dict.fromkeys(fields, nothing), mixed=torch.full((len(ids),), weight))
