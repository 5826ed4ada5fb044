"""Stands in for models.training.on_policy: each step adds a little skill."""

import json
import os
import shutil
import sys
from pathlib import Path

from data.rows import Problem, Rollout
from data.storage import read_rows, write_rows
from models.on_policy import ROLLOUTS, OnPolicyProgram
from tests.flows.stubs.common import obey, write_weights

program = OnPolicyProgram.model_validate_json(Path(sys.argv[1]).read_text())
steps = range(program.first_step + 1, program.first_step + program.train.steps + 1)
told = {"reward": 0.3, "kl": 0.01, "length": 3.0, "loss": 0.1, "seconds/sampling": 1.0}
lines = [json.dumps({"step": step} | told) for step in steps]
(program.output.parent / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
problems = list(read_rows(Problem, program.problems))[:2]
(program.output.parent / ROLLOUTS).mkdir(exist_ok=True)
for step in steps:
    rows = [
        Rollout(
            p.id, step, step, f"#### {p.reference}", [1, 2], "stop", 7, 1.0, "correct", "", p.reference, "g", [], worth
        )
        for p, worth in zip(problems, (0.5, None), strict=True)
    ]
    write_rows(Rollout, program.output.parent / ROLLOUTS / f"step-{step:06d}.parquet", rows)
obey(Path(sys.argv[1]).parent)
if program.state is not None:
    assert json.loads((program.state / "place.json").read_text()) == {"step": program.first_step}
    assert (program.state / "state/optimizer.pt").exists()
state = program.output.with_name("state")
(state / "state").mkdir(parents=True, exist_ok=True)
(state / "state/optimizer.pt").write_bytes(b"moments")
(state / "place.json").write_text(json.dumps({"step": steps[-1]}))
program.output.mkdir(parents=True, exist_ok=True)
for file in [*program.policy.glob("tokenizer*"), *program.policy.glob("*.jinja"), program.policy / "config.json"]:
    shutil.copy(file, program.output)
skill = round(json.loads((program.policy / "skill.json").read_text())["skill"] + 0.02 * len(steps), 6)
if "STUB_SKILLS" in os.environ:  # of the policies of iteration 1, 2, …
    skill = json.loads(os.environ["STUB_SKILLS"])[program.first_step // program.train.steps]
(program.output / "skill.json").write_text(json.dumps({"skill": skill}))
write_weights(program.output)
print("trained", flush=True)
