"""Held-out rows: the speed of measuring them, and the time that measuring adds to training.

The speed, in rows per second, is compared with training's own forward pass on the same rows, and the added time with
the share of added forward passes.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, show
from benchmarks.preference import CASES, Case, write_model
from data.rows import Example, Problem
from data.storage import write_rows
from models.config import LaunchConfig, LikelihoodProgram, SupervisedConfig, TrainProgram
from models.launch import launch_command
from tasks.stage.environment import child_environment

EVALUATIONS = 4


def main() -> None:
    speeds, shares = [], []
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            program = _prepare(Path(name), case)
            measured = _run("likelihood", Path(name), _likelihood(program))
            trained = _run("train", Path(name), program)
        ours, forward = case.pairs / measured["pass"], case.pairs / trained["pass"]
        speeds.append([case.name, f"{ours:,.1f}", f"{forward:,.1f}", f"{ours / forward:.2f}"])
        held_out = EVALUATIONS * (case.pairs // EVALUATIONS)
        added = trained["evaluate"] / (trained["train"] - trained["evaluate"])
        shares.append([case.name, f"{added:.1%}", f"{held_out / case.pairs:.1%}"])
    columns = ["model", "measuring, rows/s", "forward pass of training, rows/s", "ratio"]
    show("Likelihoods of gold answers", columns, speeds)
    columns = ["model", "time added to training", "forward passes added"]
    show(f"Measuring a quarter as many rows as are trained on, {EVALUATIONS} times per epoch", columns, shares)


def _prepare(folder: Path, case: Case) -> TrainProgram:
    """Write a random model, gold answers to train on, and a quarter of them to measure."""
    problems = write_model(folder, case)[: case.pairs]
    examples = [Example(p.id, 0, p.messages, p.response or "", None, "gold") for p in problems]
    write_rows(Example, folder / "examples.parquet", examples)
    write_rows(Problem, folder / "gold.parquet", problems)
    write_rows(Problem, folder / "held-out.parquet", problems[: case.pairs // EVALUATIONS])
    return TrainProgram(
        policy=folder / "model",
        examples=[folder / "examples.parquet"],
        held_out=folder / "held-out.parquet",
        output=folder / "policy",
        seed=0,
        train=SupervisedConfig(learning_rate=1e-6, epochs=1, batch_size=case.batch, dtype="float32"),
        launch=LaunchConfig(micro_batch_size=case.batch, checkpoint_steps=10_000, evaluations=EVALUATIONS),
    )


def _likelihood(program: TrainProgram) -> LikelihoodProgram:
    return LikelihoodProgram(
        policy=program.policy,
        gold=[program.policy.with_name("gold.parquet")],
        gold_outputs=[program.policy.with_name("likelihoods.parquet")],
        dtype=program.train.dtype,
        quantize=False,
        launch=program.launch,
    )


def _run(kind: str, folder: Path, program: TrainProgram | LikelihoodProgram) -> dict[str, float]:
    """Seconds of each part of the work, without startup and loading."""
    file = folder / f"{kind}.json"
    file.write_text(program.model_dump_json())
    command = [*launch_command("benchmarks.likelihood", program.launch, file), kind]
    seconds: dict[str, float] = json.loads(run_measured(command, child_environment()).output.splitlines()[-1])
    print(f"{kind}: {', '.join(f'{name} {spent:.1f} s' for name, spent in seconds.items())}", flush=True)
    return seconds


def child(kind: str, told: dict[str, Any]) -> None:
    """Do the work, and print the seconds spent in its parts."""
    from models.training import likelihood
    from models.training import supervised as train
    from models.training.common import enter, leave

    enter()
    spent: dict[str, float] = {}
    if kind == "likelihood":
        likelihood.log_probs_of = _timed(likelihood.log_probs_of, spent, "pass")
        likelihood.measure(LikelihoodProgram.model_validate(told))
    else:
        trainer = train.WeightedSFTTrainer
        for name, part in (("compute_loss", "pass"), ("evaluate", "evaluate"), ("train", "train")):
            setattr(trainer, name, _timed(getattr(trainer, name), spent, part))
        train.train(TrainProgram.model_validate(told))
    print(json.dumps(spent), flush=True)
    leave()


def _timed(function: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    import torch

    def run(*arguments: Any, **options: Any) -> Any:
        start = _now(torch)
        result = function(*arguments, **options)
        spent[part] = spent.get(part, 0.0) + _now(torch) - start
        return result

    return run


def _now(torch: Any) -> float:
    """The time once the device has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    child(sys.argv[2], json.loads(Path(sys.argv[1]).read_text()))
