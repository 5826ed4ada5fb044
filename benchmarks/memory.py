"""Memory of training on a GPU, beside what the dry run says of it (models/estimate.py), by ZeRO stage and optimiser.

A Llama of 0.8 B random weights and few short examples: next to weights, gradients and optimiser, activations are small.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, show
from data.arithmetic import embedded_problems
from data.rows import Example
from data.storage import write_rows
from models import tiny
from models.config import LaunchConfig, SupervisedConfig, TrainProgram
from models.estimate import parameters_of, training_bytes_per_device
from tasks.environment import child_environment

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "initializer_range": 0.02,
}
STEPS, BATCH = 4, 8
_SHORT = {"epochs": 1, "batch_size": BATCH, "learning_rate": 1e-5}
_MICRO = {"micro_batch_size": BATCH, "checkpoint_steps": 10_000, "log_steps": 1}
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"dtype": "bfloat16"}, {"zero_stage": 0}),
    ({"dtype": "bfloat16"}, {"zero_stage": 1}),
    ({"dtype": "bfloat16"}, {"zero_stage": 2}),
    ({"dtype": "bfloat16"}, {"zero_stage": 3}),
    ({"dtype": "bfloat16", "optimizer": "rmsprop"}, {"zero_stage": 2}),
    ({"dtype": "float32"}, {"zero_stage": 0}),
    ({"dtype": "float32"}, {"zero_stage": 2}),
]
# Runs the program, then prints what PyTorch held at most, and what it had taken from the device for that.
MEASURE = """
import runpy, sys, torch
sys.argv = ["models.train", sys.argv[1]]
runpy.run_module("models.train", run_name="__main__", alter_sys=True)
print(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
"""


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU: on a CPU, a process's memory holds its libraries as well.")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        parameters = parameters_of(folder / "model") or 0
        for train, launch in CASES:
            rows.append(_row(folder, parameters, SupervisedConfig(**_SHORT | train), LaunchConfig(**_MICRO | launch)))
    columns = ["training", "dry run, bytes/weight", "held at most", "taken", "ratio", "s"]
    show(f"Training {parameters / 1e9:.2f} B weights on one {torch.cuda.get_device_name()}", columns, rows)


def _row(folder: Path, parameters: int, train: SupervisedConfig, launch: LaunchConfig) -> list[str]:
    program = TrainProgram(
        policy=folder / "model",
        examples=[folder / "examples.parquet"],
        output=folder / "run" / "policy",
        seed=0,
        train=train,
        launch=launch,
    )
    config = folder / "train.json"
    config.write_text(program.model_dump_json())
    measured = run_measured([sys.executable, "-c", MEASURE, str(config)], child_environment())
    held, taken = (int(number) for number in measured.output.split()[-2:])
    said = training_bytes_per_device(parameters, train, launch) or 0
    return [
        f"{train.dtype}, {train.optimizer}, ZeRO {launch.zero_stage}",
        *(f"{number / parameters:.1f}" for number in (said, held, taken)),
        f"{said / held:.2f}",
        f"{measured.seconds:.0f}",
    ]


def _prepare(folder: Path) -> None:
    """The model, and examples for a few steps."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    worked = [p for p in embedded_problems(0) if p.split == "demonstration"]
    tiny.write_untrained(folder / "model", (t for p in worked for t in (p.messages[0]["content"], p.response or "")))
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | SHAPE))
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "model"), dtype=torch.bfloat16)
    model.save_pretrained(folder / "model")
    rows = (Example(p.id, 0, p.messages, p.response or "", None, "", 1.0) for p in worked[: STEPS * BATCH])
    write_rows(Example, folder / "examples.parquet", rows)
