"""The stage `train`: launches the training program and hands its progress to the run."""

import sys
from collections.abc import Sequence
from pathlib import Path

from data.storage import count_rows
from models.config import LaunchConfig, TrainConfig, TrainProgram
from models.estimate import training_bytes_per_device
from tasks.contract import PROGRAM, Artifact, Estimate, Outcome, Stage
from tasks.logs import run_logger
from tasks.process import run_child
from tasks.run import Result, Run

VERSION = 1


def train(
    run: Run,
    name: str,
    start: Artifact,
    examples: Artifact,
    config: TrainConfig,
    launch: LaunchConfig,
    seed: int,
    expected_examples: int,
) -> Result:
    """Fine-tune the policy `start` on `examples`. The new policy is in `policy/`, the curve in `metrics.jsonl`."""
    stage = Stage(
        name,
        VERSION,
        config.model_dump(mode="json"),
        {"start": start, "examples": examples},
        seed,
        resumable=True,
        command=" ".join(launch_command(launch, Path("train.json"))),
        estimate=Estimate(
            samples=int(expected_examples * config.epochs),
            # The new policy, and two checkpoints with the optimiser's state while training.
            disk_bytes=(run.parameters or 0) * 40,
            gpu_bytes=training_bytes_per_device(run.parameters, config, launch),
            devices=launch.processes,
        ),
    )

    def work(attempt: Path) -> Outcome:
        program = TrainProgram(
            policy=start.path,
            examples=[examples.path],
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_training(run, program, attempt, run.child_lock)
        rows = count_rows(examples.path)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def launch_training(run: Run, program: TrainProgram, directory: Path, lock: Path) -> Sequence[str]:
    """Write the program's configuration, run it in `directory`, return the command.

    Raises:
        ChildError: the program failed.
    """
    config = directory / PROGRAM
    config.write_text(program.model_dump_json(indent=2))
    command = launch_command(program.launch, config)
    run_child(command, directory / "log.txt", lock, run_logger())
    return command


def launch_command(launch: LaunchConfig, config: Path) -> list[str]:
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(launch.processes),
    ]
    return [*launcher, "-m", "models.train", str(config)]
