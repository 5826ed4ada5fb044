"""The settings that a user is likely to set first, in that order; --help shows only these.

A class of settings names them in `leading_settings`, with dots for groups.
"""

from pydantic import BaseModel

START = ("run", "model")
PROBLEMS = ("problems", "validation", "test", "limit")
TRAINING = ("train.learning_rate", "train.epochs", "train.batch_size")
MACHINE = ("launch.processes", "launch.micro_batch_size", "launch.zero_stage", "seed", "runs_dir")


def leading(settings_class: type[BaseModel]) -> tuple[str, ...]:
    """Return the names of the leading settings, or of all fields if the class names none."""
    named: tuple[str, ...] = getattr(settings_class, "leading_settings", ())
    return named or tuple(settings_class.model_fields)
