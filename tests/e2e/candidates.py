"""Stands in for models.generate: answers come from a fixed file, as token ids of the policy's own tokenizer.

The file `candidates.json` beside the problems' data set maps the first line of a problem to its candidates.
"""

import json
import os
import sys
from pathlib import Path

from transformers import AutoTokenizer

from data.render import completion_token_ids
from data.rows import Sample
from data.storage import write_rows
from models.config import GenerateProgram
from models.shards import missing_shards, request_seed, sampling_digest

program = GenerateProgram.model_validate_json(Path(sys.argv[1]).read_text())
candidates = json.loads(Path(os.environ["CANDIDATES"]).read_text())
tokenizer = AutoTokenizer.from_pretrained(program.policy)
for job in program.jobs:
    job.output.mkdir(parents=True, exist_ok=True)
    for shard in missing_shards(job):
        rows = []
        for problem in shard.problems:
            seed, texts = (
                request_seed(job.seed, problem.id),
                candidates[problem.messages[-1]["content"].partition("\n")[0]],
            )
            for index in range(job.sampling.samples):
                text = texts[index % len(texts)]
                ids, digest = completion_token_ids(tokenizer, text), sampling_digest(job.sampling)
                rows.append(Sample(problem.id, index, text, ids, "stop", program.policy_digest, seed, digest))
        write_rows(Sample, shard.path, rows)
