"""How a stage runs a program that trains or measures likelihoods: its configuration, its process, the devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from models.config import LaunchConfig, LaunchedProgram, TrainConfig
from models.launch import launch_command
from tasks.stage.contract import PROGRAM
from tasks.stage.devices import gpus_held
from tasks.stage.progress import progress_logger
from tasks.stage.run import Run

Trained_co = TypeVar("Trained_co", bound=TrainConfig, covariant=True)


@dataclass(frozen=True)
class Training(Generic[Trained_co]):
    """Settings of a stage that trains, or that loads weights as training does."""

    config: Trained_co
    launch: LaunchConfig


def launch_program(
    module: str,
    program: LaunchedProgram,
    directory: Path,
    lock: Path,
) -> Sequence[str]:
    """Write the program's configuration, run it in `directory`, return the command.

    Args:
        lock: a file in the run's directory, held while the program runs.

    Raises:
        ChildError: the program failed.
    """
    config = directory / PROGRAM
    config.write_text(program.model_dump_json(indent=2))
    command = launch_command(module, program.launch, config)
    with gpus_held():
        Run.start(command, directory / "log.txt", lock, progress_logger(lock.parent, directory))
    return command
