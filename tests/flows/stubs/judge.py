"""Stands in for models.judge: an answer gets five points if it ends as the reference does, else one."""

import json
import sys
from pathlib import Path

from data.opinions import Rates
from data.rows import Problem, Sample, Score
from data.storage import parquet_files, read_rows, write_rows
from models.config import JudgeProgram

program = JudgeProgram.model_validate_json(Path(sys.argv[1]).read_text())
for job in program.jobs:
    references = {problem.id: problem.reference or "" for problem in read_rows(Problem, job.problems)}
    job.output.mkdir(parents=True, exist_ok=True)
    for shard in parquet_files(job.samples):
        scores = []
        for sample in read_rows(Sample, shard):
            value = 5.0 if sample.text.endswith(f" {references[sample.problem_id]}") else 1.0
            verdict = "correct" if value >= program.judge.threshold else "wrong"
            key = {"problem_id": sample.problem_id, "index": sample.index, "grader": program.grader}
            scores.append(Score(value, verdict, "as the reference", **key))
        write_rows(Score, job.output / shard.name, scores)
    (job.output / "judge.json").write_text(json.dumps(Rates().record() | {"parse_rate": 1.0}))
