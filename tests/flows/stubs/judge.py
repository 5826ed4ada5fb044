"""Stands in for models.asking.judge: an answer gets five points if it ends as the reference does, else one.

Pairwise the program is the real one up to the model, which prefers an answer that ends so. It replies nothing that can
be read to the problems that `STUB_SILENT` names.
"""

import json
import os
import sys
from pathlib import Path
from unittest.mock import patch

import models.asking.judge
from data.judge_questions import Opinion, as_opinion
from data.opinions import Rates
from data.rows import Problem, Sample, Score
from data.storage import parquet_files, read_rows, write_rows
from models.asking.judge import Asked
from models.config import JudgeProgram


def points(problem: Problem, sample: Sample) -> float:
    return 5.0 if sample.text.endswith(f" {problem.reference or ''}") else 1.0


def compare(asked: list[Asked]) -> list[Opinion]:
    silent = os.environ.get("STUB_SILENT", "").split()
    opinions = []
    for problem, question in asked:
        assert question.second is not None
        first, second = points(problem, question.first), points(problem, question.second)
        better = "tie" if first == second else "A" if first > second else "B"
        reply = "" if problem.id in silent else json.dumps({"reasoning": "as the reference", "better": better})
        opinions.append(as_opinion("pairwise", question, reply))
    return opinions


def score(program: JudgeProgram) -> None:
    for job in program.jobs:
        problems = {problem.id: problem for problem in read_rows(Problem, job.problems)}
        job.output.mkdir(parents=True, exist_ok=True)
        for shard in parquet_files(job.samples):
            scores = []
            for sample in read_rows(Sample, shard):
                value = points(problems[sample.problem_id], sample)
                verdict = "correct" if value >= program.judge.threshold else "wrong"
                key = {"problem_id": sample.problem_id, "index": sample.index, "grader": program.grader}
                scores.append(Score(value, verdict, "as the reference", **key))
            write_rows(Score, job.output / shard.name, scores)
        (job.output / "judge.json").write_text(json.dumps(Rates().record() | {"parse_rate": 1.0}))


told = JudgeProgram.model_validate_json(Path(sys.argv[1]).read_text())
if told.judge.kind == "pairwise":
    with patch.object(models.asking.judge, "asking", lambda program, expected: compare):
        models.asking.judge.judge_samples(told)
else:
    score(told)
