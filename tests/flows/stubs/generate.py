"""Stands in for models.generate: answers are right as often as the policy's skill says, without a model."""

import json
import os
import random
import sys
from pathlib import Path

from data.rows import Problem
from models.config import GenerateProgram
from models.engine import Completion
from models.rounds import Rounds, scorers
from models.shards import missing_shards, request_seed
from tests.flows.stubs.common import obey

program = GenerateProgram.model_validate_json(Path(sys.argv[1]).read_text())
says = json.loads(os.environ.get("STUB_SAYS", '""'))  # what a policy writes besides its answer
skill = json.loads((program.policy / "skill.json").read_text())["skill"]


def answer(problem: Problem, seed: int) -> Completion:
    rng = random.Random(seed)
    right = rng.random() < skill
    text = f"{rng.randint(1, 9)}+1=0 {says}#### {problem.reference if right else -1}"
    if (problem.reference or "").startswith("{"):  # tests of a program
        text = f"# {rng.randint(1, 9)}\n{problem.response if right else 'pass'}"
    return Completion(text, [1, 2, 3], "stop")


for job in program.jobs:
    job.output.mkdir(parents=True, exist_ok=True)
    missing = missing_shards(job)
    second = missing[1].problems[0].id if len(missing) > 1 else None
    problems = [problem for shard in missing for problem in shard.problems]
    prompts = {problem.id: [number] for number, problem in enumerate(problems)}
    with scorers(missing) as processes:
        rounds = Rounds(missing, prompts, [], program.policy_digest, processes)
        for number, request in enumerate(rounds.requests()):
            assert request is not None  # each is answered before the next is asked for
            problem = problems[request.prompt[0]]
            if problem.id == second:
                second = None
                obey(Path(sys.argv[1]).parent)
            seed = request_seed(job.seed, problem.id) if request.seed is None else request.seed
            rounds.take(number, [answer(problem, seed + index) for index in range(request.samples)])
print("generated", flush=True)
