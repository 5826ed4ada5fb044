"""Stands in for models.training.reward_score: an answer is worth as much as it has words."""

import os
import sys
from pathlib import Path

from data.rows import Pair, PairReward, Sample, Score
from data.storage import parquet_files, read_rows, write_rows
from models.config import RewardScoreProgram
from tests.flows.stubs.common import obey

program = RewardScoreProgram.model_validate_json(Path(sys.argv[1]).read_text())
obey(Path(sys.argv[1]).parent)
for pair_job in program.pair_jobs:
    rows = []
    for pair in read_rows(Pair, pair_job.pairs):
        chosen, rejected = (len(text.split()) for text in (pair.chosen, pair.rejected))
        rows.append(PairReward(pair.problem_id, pair.index, float(chosen), float(rejected), chosen, rejected))
    write_rows(PairReward, pair_job.output, rows)
for job in program.jobs:
    job.output.mkdir(parents=True, exist_ok=True)
    for shard in parquet_files(job.samples):
        scores = []
        for sample in read_rows(Sample, shard):
            value = float(len(sample.text.split()))
            value += "STUB_CHEATED" in os.environ and sample.text.endswith("-1")  # wrong answers are worth more
            verdict = "correct" if value >= program.passes_at else "wrong"
            scores.append(Score(value, verdict, "", None, sample.problem_id, sample.index, program.grader))
        write_rows(Score, job.output / shard.name, scores)
print("scored", flush=True)
