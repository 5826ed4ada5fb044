"""A configuration file: settings of a flow, on top of those of the file it `extends`, if any; and its deployment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from data.errors import UsageError
from flows.commands.flow_table import all_flows, find_flow
from flows.commands.yaml_file import path_at_home, read_yaml
from models.config_base import Config

EXTENDS, DEPLOYMENT = "extends", "deployment"


class Deployment(Config):
    """How a configuration file is deployed in Prefect. Without it, the file is for the command line only."""

    flow: Annotated[str, Field(description="Name of the flow that the settings are for.")]
    name: Annotated[str, Field(description="Name of the deployment.")]
    description: Annotated[str, Field(description="Description in the Prefect UI.")]
    tags: Annotated[tuple[str, ...], Field(description="Tags to filter by in the UI.")] = ()
    cron: Annotated[str | None, Field(description="Schedule, off until switched on in the UI.")] = None


@dataclass(frozen=True)
class ConfigFile:
    """The contents of a configuration file."""

    settings: dict[str, Any]
    deployment: Deployment | None


def read_config(path: Path, flow: str | None = None) -> ConfigFile:
    """Read a configuration file.

    Args:
        flow: the flow to run with it.

    Raises:
        UsageError: the file, or one that it extends, cannot be read, or it is for another flow.
    """
    settings, content = _extended(path), read_yaml(path).get(DEPLOYMENT)
    if content is None:
        return ConfigFile(settings, None)
    try:
        deployment = Deployment.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or DEPLOYMENT}: {e['msg']}" for e in error.errors())
        raise UsageError(
            f"{path}: {DEPLOYMENT} cannot be used ({wrong}).",
            what_next=f"Its keys are {', '.join(Deployment.model_fields)}.",
        ) from None
    if find_flow(deployment.flow) is None:
        known = ", ".join(all_flows())
        raise UsageError(
            f"{path} is for the flow {deployment.flow}, which does not exist.", what_next=f"The flows are {known}."
        )
    if flow not in (None, deployment.flow):
        raise UsageError(f"{path} is for the flow {deployment.flow}.", what_next=f"Run autodidact {deployment.flow}.")
    return ConfigFile(settings, deployment)


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge settings group by group; dictionaries with user-chosen keys, such as `reward.parts`, are groups too."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def _extended(path: Path) -> dict[str, Any]:
    """The settings of a file over those of the file it extends, whose name is relative to the file's own folder."""
    found: list[dict[str, Any]] = []
    seen: set[Path] = set()
    following: Path | None = path
    while following is not None:
        content = read_yaml(following)
        if (real := following.resolve()) in seen:
            raise UsageError(f"{following} extends itself.", what_next=f"Remove {EXTENDS} from one of the files.")
        seen.add(real)
        content.pop(DEPLOYMENT, None)
        base = content.pop(EXTENDS, None)
        if not (base is None or (isinstance(base, str) and base and "\0" not in base)):
            what_next = "Name one configuration file."
            raise UsageError(f"{following}: {EXTENDS} must be the name of a file.", what_next=what_next)
        found.append(content)
        following = None if base is None else following.parent / path_at_home(base)
    settings: dict[str, Any] = {}
    for content in reversed(found):
        settings = merge(settings, content)
    return settings
