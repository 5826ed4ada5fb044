"""Judges samples with a language model, in vLLM here or at an OpenAI-compatible endpoint, in shards written atomically.

    python -m models.asking.judge CONFIG.json

For each shard of scores, `opinions/` keeps every reply, and `judge.json` has the rates over all of them. An existing
shard is not judged again, unless a request to the endpoint failed in it.
"""

import json
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from data.judge_questions import Opinion, Question, as_opinion, messages, questions, reply_schema
from data.opinions import Rates, score_problem
from data.rows import Problem, Sample, Score
from data.scoring import pair_up
from data.storage import holds, parquet_files, read_rows, write_rows
from models.asking.ask import asker
from models.asking.request import Form, Request
from models.config import JudgeConfig, JudgeProgram, ScoreJob
from models.engine.vllm import leave
from models.process import fail_plainly
from models.shards import request_seed

OPINIONS, RATES = "opinions", "judge.json"

Group = tuple[Problem, Sequence[Sample]]  # a problem and answers to it
Asked = tuple[Problem, Question]
Ask = Callable[[list[Asked]], list[Opinion]]


@dataclass(frozen=True)
class Shard:
    """A file of samples with their problems, and the files for its scores and the judge's replies."""

    groups: list[Group]
    scores: Path
    opinions: Path
    truncated: bool  # whether truncated samples are judged

    def asked(self, judge: JudgeConfig) -> list[Asked]:
        return _asked(self.groups, judge, self.truncated)


def missing_shards(job: ScoreJob, program: JudgeProgram) -> Iterator[Shard]:
    """The shards still to judge, one in memory at a time."""
    problems = iter(read_rows(Problem, job.problems))
    for file in parquet_files(job.samples):
        pairs = pair_up(problems, read_rows(Sample, file))
        by_problem = (list(group) for _, group in groupby(pairs, key=lambda pair: pair[0].id))
        groups: list[Group] = [(group[0][0], [sample for _, sample in group]) for group in by_problem]
        shard = Shard(groups, job.output / file.name, job.output / OPINIONS / file.name, program.truncated)
        if not _is_done(shard, program.judge):
            yield shard


def _is_done(shard: Shard, judge: JudgeConfig) -> bool:
    ids = [problem.id for problem, samples in shard.groups for _ in samples]
    asked = [problem.id for problem, _ in shard.asked(judge)]
    if not (holds(shard.scores, "problem_id", ids) and holds(shard.opinions, "problem_id", asked)):
        return False
    # An endpoint may reply next time; a prompt that is too long for a model here stays too long.
    return not judge.endpoint or all(opinion.text for opinion in read_rows(Opinion, shard.opinions))


def judge_samples(program: JudgeProgram) -> None:
    """Do every job with missing shards, then write the rates. An engine starts only if needed.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses the key or the model.
    """
    for job in program.jobs:
        (job.output / OPINIONS).mkdir(parents=True, exist_ok=True)
        _remove_others(job)
    if any(True for job in program.jobs for _ in missing_shards(job, program)):
        ask = asking(program, _all_asked(program))
        for job in program.jobs:
            for shard in missing_shards(job, program):
                judge_shard(shard, program, ask)
    for job in program.jobs:
        _write_rates(job)


def judge_shard(shard: Shard, program: JudgeProgram, ask: Ask) -> None:
    """Ask everything about a shard. Replies are written first, so scores never exist without them."""
    opinions, scores = judged(shard.groups, program, ask)
    write_rows(Opinion, shard.opinions, opinions)
    write_rows(Score, shard.scores, (score for of_problem in scores for score in of_problem))


def judged(groups: Sequence[Group], program: JudgeProgram, ask: Ask) -> tuple[list[Opinion], list[list[Score]]]:
    """Everything that is asked about the answers to some problems, and the scores of the answers to each."""
    judge = program.judge
    opinions = ask(_asked(groups, judge, program.truncated))
    of: dict[str, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        of[opinion.problem_id].append(opinion)
    told = judge.threshold, program.grader, program.truncated
    scores = [list(score_problem(judge.kind, samples, of[problem.id], *told)) for problem, samples in groups]
    return opinions, scores


def _asked(groups: Sequence[Group], judge: JudgeConfig, truncated: bool) -> list[Asked]:
    return [
        (problem, question)
        for problem, samples in groups
        for question in questions(judge.kind, samples, judge.opinions, judge.opponents, truncated)
    ]


def asking(program: JudgeProgram, expected: Iterable[Asked]) -> Ask:
    """Start the judge here, or connect to its endpoint.

    Args:
        expected: everything that will be asked; empty for an endpoint that shows no progress.
    """
    judge = program.judge
    form = Form("judge", "judgement", reply_schema(judge.kind, judge.max_reasoning), judge.reply_tokens)

    def request(asked: Asked) -> Request:
        said = messages(judge.kind, *asked, judge.show_reference, judge.rubric)
        return Request(said, request_seed(program.seed, asked[1].seed_key()))

    send = asker(judge, form, program.policy, program.engine, program.seed, map(request, expected))

    def ask(asked: list[Asked]) -> list[Opinion]:
        replies = send([request(one) for one in asked])
        return [
            as_opinion(judge.kind, question, reply.text, reply.failure)
            for (_, question), reply in zip(asked, replies, strict=True)
        ]

    return ask


def _all_asked(program: JudgeProgram) -> Iterator[Asked]:
    for job in program.jobs:
        for shard in missing_shards(job, program):
            yield from shard.asked(program.judge)


def _remove_others(job: ScoreJob) -> None:
    """Remove an earlier attempt's shards that match no file of samples."""
    names = {file.name for file in parquet_files(job.samples)}
    for file in [*job.output.glob("*.parquet"), *(job.output / OPINIONS).glob("*.parquet")]:
        if file.name not in names:
            file.unlink()


def _write_rates(job: ScoreJob) -> None:
    rates = Rates()
    for file in parquet_files(job.samples):
        rates.add_opinions(list(read_rows(Opinion, job.output / OPINIONS / file.name)))
        rates.add_scores(read_rows(Score, job.output / file.name))
    partial = job.output / f".{RATES}.partial"
    partial.write_text(json.dumps(rates.record(), indent=2, ensure_ascii=False) + "\n")
    os.replace(partial, job.output / RATES)


def main() -> None:
    fail_plainly()
    judge_samples(JudgeProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
