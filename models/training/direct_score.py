"""Scores answers by a language model's probabilities of the replies 1 to 10 (d-RLAIF, arXiv 2309.00267, section 3.2.2).

    python -m models.training.direct_score CONFIG.json

An answer's score is s = Σ i · P(i) over the ten replies, each read whole with what ends it and normalized over the ten;
its reward is 2(s − 1)/9 − 1. A shard of samples becomes a file of scores, as by a reward model.
"""

import copy
import gc
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch
from trl.trainer.utils import pad

from data.label_questions import BEFORE_SCORE, END, SCORES, scored
from data.labels import as_reward, direct_score
from data.render import pad_token_id, question_token_ids
from data.rows import Problem
from data.storage import count_rows
from models.config import DirectScoreProgram
from models.progress import Progress
from models.training.common import leave, load_policy, quiet
from models.training.reward_score import Judge, batches, score_job


class DirectJudge(Judge):
    """A language model, ready to score answers."""

    program: DirectScoreProgram
    called = "model that scores directly"

    def __init__(self, program: DirectScoreProgram, progress: Progress | None = None) -> None:
        super().__init__(program, progress)
        self.frame, *self.choices = (self._ids(text) for text in (BEFORE_SCORE, *(value + END for value in SCORES)))
        self.limit -= max(map(len, self.choices))
        self._keeps_some = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def load(self) -> Any:
        program = self.program
        return load_policy(program.model, program.scoring.dtype, code=program.model_code)

    def rendered(self, problem: Problem, answer: str) -> list[int]:
        return question_token_ids(self.tokenizer, scored(problem, answer, self.program.rubric)) + self.frame

    def rewards(self, sequences: Sequence[list[int]]) -> list[float]:
        """The rewards of questions, given as token ids, in order. Padding does not change them."""
        found = [0.0] * len(sequences)
        for batch in batches([len(ids) for ids in sequences], self.program.scoring.batch_tokens):
            log_probs = self.log_probs([sequences[number] for number in batch])
            for number, of_ten in zip(batch, log_probs.tolist(), strict=True):
                found[number] = _reward(of_ten)
            self.advance(len(batch))
        return found

    def log_probs(self, sequences: Sequence[list[int]]) -> torch.Tensor:
        """The log-probability of each of the ten replies after each question, of shape (questions, 10).

        A question is read once. Each reply then goes on from there, on a copy of what the model keeps of it.
        """
        rows, device = [torch.tensor(ids) for ids in sequences], self.model.device
        ids = pad(rows, padding_value=pad_token_id(self.tokenizer), padding_side="left").to(device)
        mask = pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="left").to(device)
        with torch.no_grad():
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)
            read = self.model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1)
            first = read.logits[:, -1].float().log_softmax(dim=-1)
            found = []
            for choice in self.choices:
                total = first[:, choice[0]]
                if len(choice) > 1:
                    more = torch.tensor(choice[:-1], device=device).expand(len(sequences), -1)
                    after = self.model(
                        input_ids=more,
                        attention_mask=torch.cat([mask, torch.ones_like(more)], dim=1),
                        position_ids=places[:, -1:] + 1 + torch.arange(more.size(1), device=device),
                        past_key_values=copy.deepcopy(read.past_key_values),
                        use_cache=True,
                    ).logits.float()
                    targets = torch.tensor(choice[1:], device=device).expand(len(sequences), -1)
                    total = total + after.log_softmax(dim=-1).gather(2, targets[..., None]).sum(dim=(1, 2))
                found.append(total)
        return torch.stack(found, dim=1)

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def _reward(log_probs: list[float]) -> float:
    """The reward, or NaN if the replies have no probabilities."""
    try:
        return as_reward(direct_score(log_probs))
    except ValueError:
        return float("nan")


def score(program: DirectScoreProgram) -> None:
    """Do every job of the program, on one device."""
    judge = DirectJudge(program, Progress("score", sum(count_rows(job.samples) for job in program.jobs), "answer"))
    for job in program.jobs:
        score_job(judge, job)


if __name__ == "__main__":
    quiet()
    score(DirectScoreProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
