"""The base class of every configuration. Importing this loads neither torch nor vLLM."""

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class Config(BaseModel):
    """Base of every configuration class: frozen; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _tilde_is_the_home_folder(cls, value: Any) -> Any:
        """No shell expands `~` in paths that come from a file or a form."""
        if isinstance(value, tuple):
            return tuple(_at_home(item) for item in value)
        return _at_home(value)


def _at_home(value: Any) -> Any:
    return Path(os.path.expanduser(value)) if isinstance(value, Path) else value
