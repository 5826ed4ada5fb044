"""Stands in for models.training.reward_model: the policy's tokenizer and configuration, a classifier of one label."""

import json
import shutil
import sys
from pathlib import Path

from data.rows import Pair
from data.storage import read_rows
from models.config import RewardTrainProgram
from tests.flows.stubs.common import obey, write_weights

program = RewardTrainProgram.model_validate_json(Path(sys.argv[1]).read_text())
obey(Path(sys.argv[1]).parent)
assert [pair for file in program.pairs for pair in read_rows(Pair, file)]
program.output.mkdir(parents=True, exist_ok=True)
if program.train.adapter:
    program.output.with_name("adapter").mkdir(exist_ok=True)
for file in [*program.policy.glob("tokenizer*"), *program.policy.glob("*.jinja")]:
    shutil.copy(file, program.output)
config = json.loads((program.policy / "config.json").read_text())
config |= {"architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
(program.output / "config.json").write_text(json.dumps(config))
write_weights(program.output)
journal = '{"step": 10, "loss": 0.6, "accuracy": 0.75, "margin": 0.25}\n'
if program.held_out:
    journal += '{"step": 10, "held_out/loss": 0.65, "held_out/accuracy": 0.7}\n'
(program.output.parent / "metrics.jsonl").write_text(journal)
print("trained", flush=True)
