"""A configuration file: settings of a flow, on top of those of another file if it `extends` one; and its deployment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from data.errors import UsageError
from flows.commands.yaml_file import read_yaml
from models.config import Config

EXTENDS, DEPLOYMENT = "extends", "deployment"


class Deployment(Config):
    """How a configuration file is deployed in Prefect. Without it the file is for the command line only."""

    flow: Annotated[str, Field(description="Name of the flow that the settings are for.")]
    name: Annotated[str, Field(description="Name of the deployment.")]
    description: Annotated[str, Field(description="What the Prefect UI says of it.")]
    tags: Annotated[tuple[str, ...], Field(description="By which the UI filters.")] = ()
    cron: Annotated[str | None, Field(description="A schedule, which is off until it is switched on in the UI.")] = None


@dataclass(frozen=True)
class ConfigFile:
    """What a configuration file says."""

    settings: dict[str, Any]
    deployment: Deployment | None


def read_config(path: Path, flow: str | None = None) -> ConfigFile:
    """Read a configuration file.

    Args:
        flow: the flow that is to run with it.

    Raises:
        UsageError: the file, or one that it extends, cannot be read; or it is for another flow.
    """
    settings, content = _extended(path, ()), read_yaml(path).get(DEPLOYMENT)
    if content is None:
        return ConfigFile(settings, None)
    try:
        deployment = Deployment.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or DEPLOYMENT}: {e['msg']}" for e in error.errors())
        raise UsageError(
            f"{path} says under {DEPLOYMENT} what cannot be used ({wrong}).",
            what_next=f"It has {', '.join(Deployment.model_fields)}.",
        ) from None
    if flow not in (None, deployment.flow):
        raise UsageError(f"{path} is for the flow {deployment.flow}.", what_next=f"Run autodidact {deployment.flow}.")
    return ConfigFile(settings, deployment)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings over other ones, group by group."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def _extended(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """The settings of a file over those of the file that it extends, which is named from its own folder."""
    if path.resolve() in above:
        raise UsageError(f"{path} extends itself.", what_next=f"Leave out {EXTENDS} in one of the files.")
    content = read_yaml(path)
    content.pop(DEPLOYMENT, None)
    base = content.pop(EXTENDS, None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise UsageError(f"{path}: {EXTENDS} has to be the name of a file.", what_next="Name one configuration file.")
    return merge(_extended(path.parent / Path(base).expanduser(), (*above, path.resolve())), content)
