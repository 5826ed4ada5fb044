"""Labels which of two answers is better, from a language model's probabilities of its choices, in shards.

    python -m models.asking.label CONFIG.json

Each pair is shown in both orders. The model first reasons greedily; then each choice is scored as a whole after that
reasoning, with what ends it (RLAIF, arXiv 2309.00267, section 3.1). A shard's requests form their own batches, and an
existing shard is not labeled again.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from data.judge_questions import longest_reply
from data.label_questions import CHOICES, END, before_choice, compared, drawn_principle, reasoning_schema
from data.labels import Label, probabilities, soft_label
from data.pairing import comparable
from data.render import as_text, question_token_ids
from data.replies import ReplyError, read_json
from data.rows import Problem, Sample
from data.scoring import pair_up
from data.storage import holds, parquet_files, read_rows, write_rows
from data.text import storable
from models.asking.ask import does_not_fit
from models.config import LabelerConfig, LabelProgram
from models.engine import Engine, Request, Served, answers_in_order, start
from models.engine.meter import Meter
from models.engine.vllm import leave
from models.loading import load_tokenizer, room_of
from models.process import fail_plainly
from models.progress import Progress

ROLE = "labeler"


@dataclass(frozen=True)
class Compared:
    """Two answers to one problem, and what the labeler goes by."""

    problem: Problem
    first: Sample
    second: Sample
    principle: str

    def shown(self, labeler: LabelerConfig, swapped: bool) -> list[dict[str, str]]:
        texts = [self.first.text, self.second.text]
        ordered = texts[::-1] if swapped else texts
        return compared(self.problem, ordered, labeler.rubric, self.principle, labeler.max_reasoning > 0)


@dataclass(frozen=True)
class Reading:
    """A comparison in one order: the reasoning, and the probability of "the first shown is better"."""

    reasoning: str = ""
    first_is_better: float | None = None
    failure: str = ""


def label_samples(program: LabelProgram) -> None:
    """Label the pairs of all missing shards. The engine starts only if something is left to do."""
    program.output.mkdir(parents=True, exist_ok=True)
    files = parquet_files(program.samples)
    for other in set(program.output.glob("*.parquet")) - {program.output / file.name for file in files}:
        other.unlink()
    expected = (pair for _, pairs in missing_shards(program) for pair in pairs)
    first = next(expected, None)
    labeler = Labeler(program, chain([first], expected)) if first else None
    for output, pairs in missing_shards(program):
        write_rows(Label, output, labeler.labels(pairs) if labeler else ())


def missing_shards(program: LabelProgram) -> Iterator[tuple[Path, list[Compared]]]:
    """The file of each shard that is still to be labeled, and the pairs in it, one shard in memory at a time."""
    problems, principles = iter(read_rows(Problem, program.problems)), program.labeler.principles
    for file in parquet_files(program.samples):
        rows, pairs = pair_up(problems, read_rows(Sample, file)), list[Compared]()
        for name, group in groupby(rows, key=lambda row: row[0].id):
            of_problem = list(group)
            for first, second in comparable([sample for _, sample in of_problem], Counter()):
                key = f"{name}/{first.index}/{second.index}"
                principle = drawn_principle(principles, key, program.seed)
                pairs.append(Compared(of_problem[0][0], first, second, principle))
        output = program.output / file.name
        if not holds(output, "problem_id", [pair.problem.id for pair in pairs]):
            yield output, pairs


class Labeler:
    """A model that is ready to label.

    Args:
        expected: everything that will be labeled, for sizing the context and showing progress.
    """

    def __init__(self, program: LabelProgram, expected: Iterable[Compared]) -> None:
        self.labeler, code = program.labeler, program.labeler.model_code
        self.reply_tokens = longest_reply(self.labeler.max_reasoning)
        self.tokenizer = load_tokenizer(program.policy, code)
        self.choices = [self._ids(choice + END) for choice in CHOICES]
        context = room_of(program.policy, code, program.engine.max_model_len)
        lengths = [len(self._prompt(pair, swapped)) for pair in expected for swapped in (False, True)]
        self.longest = min(context, max(lengths) + self.reply_tokens)
        fitting = sum(length + self.reply_tokens <= self.longest for length in lengths)
        replies = fitting * (len(CHOICES) + (1 if self.labeler.max_reasoning else 0))
        self.meter = Meter(Progress(ROLE, replies, "reply"))
        self.engine: Engine | None = None
        if fitting:
            reasons = self.labeler.max_reasoning > 0
            told = program.policy, self.labeler.dtype, self.longest, program.seed, code
            self.engine = start(Served(*told, held_to_schemas=reasons, read=True), program.engine)

    def labels(self, pairs: Sequence[Compared]) -> Iterator[Label]:
        """The labels of some pairs, in order."""
        asked = [(pair, swapped) for pair in pairs for swapped in (False, True)]
        readings = self._readings([self._prompt(*one) for one in asked])
        for pair, straight, swapped in zip(pairs, readings[::2], readings[1::2], strict=True):
            shares = straight.first_is_better, swapped.first_is_better
            value = None if None in shares else soft_label(*shares, self.labeler.clamp)  # type: ignore[arg-type]
            said = storable(straight.reasoning), storable(swapped.reasoning)
            failure = storable(straight.failure or swapped.failure)
            known = pair.problem.id, pair.first.index, pair.second.index
            yield Label(*known, *shares, value, *said, pair.principle, failure)

    def _readings(self, prompts: Sequence[list[int]]) -> list[Reading]:
        fits = [len(ids) + self.reply_tokens <= self.longest for ids in prompts]
        fitting = [ids for ids, fit in zip(prompts, fits, strict=True) if fit]
        readings = iter(self._fitting(self.engine, fitting) if self.engine and fitting else [])
        return [
            next(readings) if fit else Reading(failure=does_not_fit(ROLE, len(ids), self.reply_tokens, self.longest))
            for ids, fit in zip(prompts, fits, strict=True)
        ]

    def _fitting(self, engine: Engine, prompts: Sequence[list[int]]) -> list[Reading]:
        reasoned = self._reasoned(engine, prompts)
        frames = [self._ids(as_text(self.tokenizer, before_choice(reasoning))) for reasoning, _ in reasoned]
        begun = [prompt + frame for prompt, frame in zip(prompts, frames, strict=True)]
        log_probs = engine.likelihoods([(one, choice) for one in begun for choice in self.choices], self.meter)
        both = zip(log_probs[::2], log_probs[1::2], strict=True)
        return [_read(*said, shares) for said, shares in zip(reasoned, both, strict=True)]

    def _reasoned(self, engine: Engine, prompts: Sequence[list[int]]) -> list[tuple[str | None, str]]:
        """The reasoning about each comparison, or why there is none."""
        if not self.labeler.max_reasoning:
            return [(None, "") for _ in prompts]
        schema = reasoning_schema(self.labeler.max_reasoning)
        requests = [Request(ids, 1, 0.0, self.reply_tokens, None, schema=schema) for ids in prompts]
        return [_reasoning(answers[0].text) for answers in answers_in_order(engine, requests, self.meter)]

    def _prompt(self, pair: Compared, swapped: bool) -> list[int]:
        return question_token_ids(self.tokenizer, pair.shown(self.labeler, swapped))

    def _ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found


def _reasoning(text: str) -> tuple[str | None, str]:
    try:
        return str(read_json(text, "reasoning")["reasoning"]), ""
    except ReplyError as error:
        return "", str(error)


def _read(reasoning: str | None, failure: str, log_probs: Sequence[float]) -> Reading:
    if failure:
        return Reading(reasoning or "", None, failure)
    try:
        return Reading(reasoning or "", probabilities(log_probs)[0])
    except ValueError as error:
        return Reading(reasoning or "", None, str(error))


def main() -> None:
    fail_plainly()
    label_samples(LabelProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
