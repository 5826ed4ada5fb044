"""GPU memory of training against the dry run's estimate (models/estimate.py). Needs a GPU.

The model is a Llama of 0.8 B random weights. With short examples, activations are small next to weights, gradients and
optimizer state, which differ by ZeRO stage and optimizer; with long ones, activations dominate.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, show
from data.arithmetic import embedded_problems
from data.render import prompt_token_ids
from data.rows import Example, Problem
from data.storage import write_rows
from models import tiny
from models.config import LaunchConfig, SupervisedConfig, TrainProgram
from models.estimate import activation_bytes, parameters_of, training_bytes_per_device
from tasks.stage.environment import child_environment

SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "initializer_range": 0.02,
}
SHORT, LONG = 64, 1000  # tokens of an example
STEPS, BATCH = 4, 8
# Settings of training and of its launch; tokens and number of examples per forward pass.
CASES: list[tuple[dict[str, Any], dict[str, Any], int, int]] = [
    ({"dtype": "bfloat16"}, {"zero_stage": 0}, SHORT, BATCH),
    ({"dtype": "bfloat16"}, {"zero_stage": 1}, SHORT, BATCH),
    ({"dtype": "bfloat16"}, {"zero_stage": 2}, SHORT, BATCH),
    ({"dtype": "bfloat16"}, {"zero_stage": 3}, SHORT, BATCH),
    ({"dtype": "bfloat16", "optimizer": "rmsprop"}, {"zero_stage": 2}, SHORT, BATCH),
    ({"dtype": "float32"}, {"zero_stage": 0}, SHORT, BATCH),
    ({"dtype": "float32"}, {"zero_stage": 2}, SHORT, BATCH),
    ({"dtype": "bfloat16"}, {}, LONG, 4),
    ({"dtype": "bfloat16"}, {}, LONG, 16),
    ({"dtype": "bfloat16"}, {"gradient_checkpointing": True}, LONG, 16),
    ({"dtype": "bfloat16"}, {"gradient_checkpointing": True}, LONG, 64),
    ({"dtype": "float32"}, {}, LONG, 4),
    ({"dtype": "float32"}, {}, LONG, 8),
]
# Runs the program, which at the end prints PyTorch's peak allocated memory and the memory reserved for it.
MEASURE = """
import runpy, sys, torch
from models import process
end = process.end
def tell():
    print(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())
    end()
process.end = tell
sys.argv = ["models.training.supervised", sys.argv[1]]
runpy.run_module("models.training.supervised", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    import torch

    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU: on a CPU, a process's memory includes its libraries.")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_model(folder / "model")
        parameters = parameters_of(folder / "model") or 0
        for train, launch, tokens, batch in CASES:
            config = SupervisedConfig(**{"epochs": 1, "batch_size": batch, "learning_rate": 1e-5} | train)
            how = LaunchConfig(**{"micro_batch_size": batch, "checkpoint_steps": 10_000, "log_steps": 1} | launch)
            rows.append(_row(folder, parameters, config, how, tokens))
    columns = ["training", "tokens at a time", "dry run, bytes/weight", "peak allocated", "reserved", "ratio", "s"]
    show(f"Training {parameters / 1e9:.2f} B weights on one {torch.cuda.get_device_name()}", columns, rows)


def _row(folder: Path, parameters: int, train: SupervisedConfig, launch: LaunchConfig, tokens: int) -> list[str]:
    program = TrainProgram(
        policy=folder / "model",
        examples=[_write_examples(folder, STEPS * train.batch_size, tokens)],
        output=folder / "run" / "policy",
        seed=0,
        train=train,
        launch=launch,
    )
    config = folder / "train.json"
    config.write_text(program.model_dump_json())
    measured = run_measured([sys.executable, "-c", MEASURE, str(config)], child_environment())
    held, taken = (int(number) for number in measured.output.split()[-2:])
    at_a_time = launch.micro_batch_size * tokens
    said = training_bytes_per_device(parameters, train, launch) or 0
    said += activation_bytes(parameters, at_a_time, train.dtype, launch) or 0
    checkpointing = ", checkpointing" if launch.gradient_checkpointing else ""
    return [
        f"{train.dtype}, {train.optimizer}, ZeRO {launch.zero_stage}{checkpointing}",
        f"{at_a_time:,}",
        *(f"{number / parameters:.1f}" for number in (said, held, taken)),
        f"{said / held:.2f}",
        f"{measured.seconds:.0f}",
    ]


def _write_model(folder: Path) -> None:
    import torch

    from models.loading import load_config, random_weights

    worked = _worked()
    tiny.write_untrained(folder, (t for p in worked for t in (p.messages[0]["content"], p.response or "")))
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | SHAPE))
    with torch.device("cuda"):
        model = random_weights(load_config(folder, "refuse"), "refuse", dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _write_examples(folder: Path, number: int, tokens: int) -> Path:
    """Write examples of `tokens` tokens each, prompt and answer together."""
    from models.loading import load_tokenizer

    tokenizer = load_tokenizer(folder / "model", "refuse")
    file = folder / f"{number}-of-{tokens}.parquet"
    rows = []
    for problem in _worked()[:number]:
        answer = [tokenizer.eos_token_id] * (tokens - len(prompt_token_ids(tokenizer, problem.messages)))
        rows.append(Example(problem.id, 0, problem.messages, "", answer, "", 1.0))
    write_rows(Example, file, rows)
    return file


def _worked() -> list[Problem]:
    return [p for p in embedded_problems(0) if p.split == "demonstration"]
