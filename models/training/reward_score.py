"""Scores with a reward model: one forward pass over each prompt with its answer, in batches of similar length.

    python -m models.training.reward_score CONFIG.json

A shard of samples becomes a file of scores with the same name, written atomically; an existing one is not made again.
"""

import gc
import math
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch
from trl.trainer.utils import pad

from data.render import judged_token_ids, pad_token_id
from data.rows import Pair, PairReward, Problem, Sample, Score
from data.scoring import pair_up
from data.storage import count_rows, holds, parquet_files, read_rows, write_rows
from models.config import DirectScoreProgram, PairScoreJob, RewardScoreProgram, ScoreJob
from models.loading import load_tokenizer, room_of
from models.progress import Progress
from models.training.common import leave, load_reward_model, quiet


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of sequences, longest first, in batches of at most `batch_tokens` with padding; one alone may be longer.

    So what does not fit into memory fails at once, and there is little padding.
    """
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


class Judge:
    """A reward model with its tokenizer, ready to score.

    Attributes:
        called: the model in messages.
    """

    called = "reward model"

    def __init__(self, program: RewardScoreProgram | DirectScoreProgram, progress: Progress | None = None) -> None:
        self.program, self.progress = program, progress
        folder, code = program.model, program.model_code
        self.tokenizer = load_tokenizer(folder, code, model_max_length=sys.maxsize)
        self.limit = min(room_of(folder, code), program.max_length or 1 << 30)
        self.model = self.load().to("cuda" if torch.cuda.is_available() else "cpu").eval()

    def load(self) -> Any:
        """The model."""
        program = self.program
        return load_reward_model(program.model, self.tokenizer, program.scoring.dtype, code=program.model_code)

    def rendered(self, problem: Problem, answer: str) -> list[int]:
        """What the model reads of an answer, as token ids."""
        prompt, told = judged_token_ids(self.tokenizer, problem.messages, answer)
        return prompt + told

    def rewards(self, sequences: Sequence[list[int]]) -> list[float]:
        """The rewards of prompts with answers, given as token ids, in order. Padding does not change them."""
        found = [0.0] * len(sequences)
        for batch in batches([len(ids) for ids in sequences], self.program.scoring.batch_tokens):
            rows = [torch.tensor(sequences[number]) for number in batch]
            ids = pad(rows, padding_value=pad_token_id(self.tokenizer), padding_side="right")
            mask = pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side="right")
            with torch.no_grad():
                given = {"input_ids": ids.to(self.model.device), "attention_mask": mask.to(self.model.device)}
                values = self.model(**given, use_cache=False).logits.squeeze(-1).float().tolist()
            for number, value in zip(batch, values, strict=True):
                found[number] = value
            self.advance(len(batch))
        return found

    def advance(self, answers: int) -> None:
        if self.progress:
            self.progress.update(self.progress.done + answers)

    def scores(self, rows: Sequence[tuple[Problem, Sample]]) -> Iterator[Score]:
        """Scores of samples, in order. All samples of a problem must be among them."""
        rendered: dict[int, list[int]] = {}
        for number, (problem, sample) in enumerate(rows):
            if not sample.truncated:
                rendered[number] = self.rendered(problem, sample.text)
        fitting = [number for number, ids in rendered.items() if len(ids) <= self.limit]
        self.advance(len(rows) - len(fitting))
        values = dict(zip(fitting, self.rewards([rendered[number] for number in fitting]), strict=True))
        lowest: dict[str, float] = {}
        for number, value in values.items():
            if math.isfinite(value):
                known = lowest.get(rows[number][0].id, self.program.passes_at)
                lowest[rows[number][0].id] = min(known, value)
        for number, (problem, sample) in enumerate(rows):
            if sample.truncated:
                # Rewards can be negative, so 0 could win; one less than the problem's worst finished answer cannot.
                value = lowest.get(problem.id, self.program.passes_at) - 1.0
                score = Score(value, "wrong", "truncated at the token limit")
            elif number not in values:
                score = Score(None, "error", self._too_long(len(rendered[number])))
            elif not math.isfinite(values[number]):
                score = Score(None, "error", f"The {self.called} gave {values[number]}; see its weights.")
            else:
                passes = values[number] >= self.program.passes_at
                score = Score(values[number], "correct" if passes else "wrong")
            yield Score(
                score.value, score.verdict, score.explanation, None, problem.id, sample.index, self.program.grader
            )

    def _too_long(self, tokens: int) -> str:
        return f"Prompt and answer have {tokens:,} tokens, and the {self.called} reads {self.limit:,}."


def score_job(judge: Judge, job: ScoreJob) -> None:
    """Score the missing shards of a job. Files that match no shard are removed."""
    rows = pair_up(read_rows(Problem, job.problems), read_rows(Sample, job.samples))
    shards = parquet_files(job.samples)
    job.output.mkdir(parents=True, exist_ok=True)
    for file in set(job.output.glob("*.parquet")) - {job.output / shard.name for shard in shards}:
        file.unlink()
    for shard in shards:
        mine = list(islice(rows, count_rows(shard)))
        output = job.output / shard.name
        if _is_whole(output, mine):
            judge.advance(len(mine))
        else:
            write_rows(Score, output, judge.scores(mine))


def _is_whole(output: Path, rows: Sequence[tuple[Problem, Sample]]) -> bool:
    ids, indices = [sample.problem_id for _, sample in rows], [sample.index for _, sample in rows]
    return holds(output, "problem_id", ids) and holds(output, "index", indices)


def score_pairs(judge: Judge, job: PairScoreJob) -> None:
    """Score both answers of every pair.

    Raises:
        ValueError: a prompt with its answer is longer than the model can read.
    """
    pairs = list(read_rows(Pair, job.pairs))
    sides = [
        judged_token_ids(judge.tokenizer, pair.messages, text)
        for pair in pairs
        for text in (pair.chosen, pair.rejected)
    ]
    if (longest := max((len(prompt) + len(answer) for prompt, answer in sides), default=0)) > judge.limit:
        raise ValueError(
            f"A pair in {job.pairs} has an answer of {longest:,} tokens with its prompt; the limit is {judge.limit:,}."
        )
    values = judge.rewards([prompt + answer for prompt, answer in sides])
    rows = []
    for number, pair in enumerate(pairs):
        chosen, rejected = 2 * number, 2 * number + 1
        rewards, lengths = (values[chosen], values[rejected]), (len(sides[chosen][1]), len(sides[rejected][1]))
        rows.append(PairReward(pair.problem_id, pair.index, *rewards, *lengths))
    write_rows(PairReward, job.output, rows)


def score(program: RewardScoreProgram) -> None:
    """Do every job of the program, on one device."""
    answers = sum(count_rows(job.samples) for job in program.jobs)
    answers += 2 * sum(count_rows(job.pairs) for job in program.pair_jobs)
    judge = Judge(program, Progress("score", answers, "answer"))
    for job in program.jobs:
        score_job(judge, job)
    for pair_job in program.pair_jobs:
        score_pairs(judge, pair_job)


if __name__ == "__main__":
    quiet()
    score(RewardScoreProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
