"""Stands in for models.generate: answers are right as often as the policy's skill says, without a model."""

import json
import os
import random
import sys
from pathlib import Path

from data.rows import Sample
from data.storage import write_rows
from models.config import GenerateProgram
from models.generate import missing_shards, request_seed, sampling_digest
from tests.flows.stubs.common import obey

program = GenerateProgram.model_validate_json(Path(sys.argv[1]).read_text())
says = json.loads(os.environ.get("STUB_SAYS", '""'))  # what a policy writes besides its answer
skill = json.loads((program.policy / "skill.json").read_text())["skill"]
for job in program.jobs:
    job.output.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(missing_shards(job)):
        if number == 1:
            obey(Path(sys.argv[1]).parent)
        rows = []
        for problem in shard.problems:
            seed = request_seed(job.seed, problem.id)
            for index in range(job.sampling.samples):
                rng = random.Random(seed + index)
                right = rng.random() < skill
                text = f"{rng.randint(1, 9)}+1=0 {says}#### {problem.reference if right else -1}"
                if (problem.reference or "").startswith("{"):  # tests of a program
                    text = f"# {rng.randint(1, 9)}\n{problem.response if right else 'pass'}"
                digest = sampling_digest(job.sampling)
                ids = [1, 2, 3]
                rows.append(Sample(problem.id, index, text, ids, "stop", program.policy_digest, seed + index, digest))
        write_rows(Sample, shard.path, rows)
print("generated", flush=True)
