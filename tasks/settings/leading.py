"""The settings that a person who starts a run thinks of first, in that order: what --help shows of the many.

A class of settings names them in `leading_settings`, dotted where they are in a group.
"""

from pydantic import BaseModel

START = ("run", "model")
PROBLEMS = ("problems", "validation", "test", "limit")
TRAINING = ("train.learning_rate", "train.epochs", "train.batch_size")
MACHINE = ("launch.processes", "launch.micro_batch_size", "launch.zero_stage", "seed", "runs_dir")


def leading(settings_class: type[BaseModel]) -> tuple[str, ...]:
    """The names of the leading settings; of a class that names none, those of all its fields."""
    named: tuple[str, ...] = getattr(settings_class, "leading_settings", ())
    return named or tuple(settings_class.model_fields)
