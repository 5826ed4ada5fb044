"""Stands in for models.training.likelihood: a policy's skill makes gold answers likelier, and most chosen ones.

To one without skill of its own, every chosen token costs one nat and every rejected one two.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from data.rows import GoldLikelihood, Pair, PairLikelihood, Problem
from data.storage import read_rows, write_rows
from models.config import LikelihoodProgram
from tests.flows.stubs.common import obey

program = LikelihoodProgram.model_validate_json(Path(sys.argv[1]).read_text())
obey(Path(sys.argv[1]).parent)
skills = program.policy / "skill.json"
gain = json.loads(skills.read_text())["skill"] - 0.2 if skills.exists() else 0.0


def share(problem_id: str) -> float:
    """A number from 0 to 1 of a problem's own."""
    return int(problem_id[:4], 16) / 0xFFFF


for problems, output in zip(program.gold, program.gold_outputs, strict=True):
    gold, seen = [], Counter[str]()
    for problem in read_rows(Problem, problems):
        if problem.response is not None:
            tokens = len(problem.response.split()) + 1
            nats = (1.5 - gain) * (0.8 + 0.4 * share(problem.id))
            gold.append(GoldLikelihood(problem.id, seen[problem.id], -nats * tokens, tokens))
            seen[problem.id] += 1
    write_rows(GoldLikelihood, output, gold)
for pairs, output in zip(program.pairs, program.outputs, strict=True):
    rows = []
    for pair in read_rows(Pair, pairs):
        chosen = len(pair.chosen_token_ids or pair.chosen.split())
        rejected = len(pair.rejected_token_ids or pair.rejected.split())
        lift = gain * (share(pair.problem_id) - 0.25)  # of three pairs out of four it lifts the chosen side
        rows.append(PairLikelihood(pair.problem_id, pair.index, chosen * (lift - 1), -2 * rejected, chosen, rejected))
    write_rows(PairLikelihood, output, rows)
print("measured", flush=True)
