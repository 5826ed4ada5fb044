"""Stands in for models.training.on_policy: each step adds a little skill."""

import json
import shutil
import sys
from pathlib import Path

from models.on_policy import OnPolicyProgram
from tests.flows.stubs.common import obey, write_weights

program = OnPolicyProgram.model_validate_json(Path(sys.argv[1]).read_text())
steps = range(program.first_step + 1, program.first_step + program.train.steps + 1)
lines = [json.dumps({"step": step, "reward": 0.3, "kl": 0.01, "loss": 0.1, "seconds/sampling": 1.0}) for step in steps]
(program.output.parent / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
obey(Path(sys.argv[1]).parent)
if program.state is not None:
    assert json.loads((program.state / "place.json").read_text()) == {"step": program.first_step}
state = program.output.with_name("state")
state.mkdir(parents=True, exist_ok=True)
(state / "place.json").write_text(json.dumps({"step": steps[-1]}))
program.output.mkdir(parents=True, exist_ok=True)
for file in [*program.policy.glob("tokenizer*"), *program.policy.glob("*.jinja"), program.policy / "config.json"]:
    shutil.copy(file, program.output)
skill = json.loads((program.policy / "skill.json").read_text())["skill"]
(program.output / "skill.json").write_text(json.dumps({"skill": round(skill + 0.02 * len(steps), 6)}))
write_weights(program.output)
print("trained", flush=True)
