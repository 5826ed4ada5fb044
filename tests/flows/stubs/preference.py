"""Stands in for models.training.preference: skill grows with every set of pairs, or is what STUB_SKILLS says."""

import json
import os
import shutil
import sys
from pathlib import Path

from data.rows import Pair, PairLikelihood
from data.storage import read_rows
from models.config import PreferenceProgram
from tests.flows.stubs.common import obey, write_weights

program = PreferenceProgram.model_validate_json(Path(sys.argv[1]).read_text())
obey(Path(sys.argv[1]).parent)
for pairs, reference in zip(program.pairs, program.reference, strict=True):
    for pair, likelihood in zip(read_rows(Pair, pairs), read_rows(PairLikelihood, reference), strict=True):
        assert (pair.problem_id, pair.index) == (likelihood.problem_id, likelihood.index)
skill = json.loads((program.policy / "skill.json").read_text())["skill"]
program.output.mkdir(parents=True, exist_ok=True)
if program.train.adapter:
    program.output.with_name("adapter").mkdir(exist_ok=True)
for file in [*program.policy.glob("tokenizer*"), *program.policy.glob("*.jinja"), program.policy / "config.json"]:
    shutil.copy(file, program.output)
if "STUB_SKILLS" in os.environ:  # of the policies of iteration 1, 2, …
    iteration = Path(sys.argv[1]).parent.parent.name.removeprefix("iter-")
    skill = json.loads(os.environ["STUB_SKILLS"])[int(iteration) - 1]
else:
    skill = round(skill + 0.1 * len(program.pairs), 6)
told = {"skill": skill, "beta": program.train.beta}
(program.output / "skill.json").write_text(json.dumps(told))
write_weights(program.output)
lines = ['{"step": 10, "loss": 0.6, "rewards/margins": 0.25}']
if program.held_out:
    assert program.held_out_reference is not None and program.held_out_reference.exists()
    lines.append('{"step": 10, "held_out/loss": 0.65, "held_out/rewards/margins": 0.15}')
(program.output.parent / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
print("trained", flush=True)
