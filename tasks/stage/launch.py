"""How a stage runs a program that trains, or that measures likelihoods: its configuration, its child, the devices."""

from collections.abc import Sequence
from pathlib import Path

from models.config import LikelihoodProgram, PreferenceProgram, RewardTrainProgram, TrainProgram
from models.launch import launch_command
from tasks.stage.contract import PROGRAM
from tasks.stage.devices import gpus_held
from tasks.stage.logs import run_logger
from tasks.stage.process import run_child


def launch_program(
    module: str,
    program: TrainProgram | PreferenceProgram | LikelihoodProgram | RewardTrainProgram,
    directory: Path,
    lock: Path,
) -> Sequence[str]:
    """Write the program's configuration, run it in `directory`, return the command.

    Args:
        lock: held while the program lives.

    Raises:
        ChildError: the program failed.
    """
    config = directory / PROGRAM
    config.write_text(program.model_dump_json(indent=2))
    command = launch_command(module, program.launch, config)
    with gpus_held():
        run_child(command, directory / "log.txt", lock, run_logger())
    return command
