"""The command `autodidact <flow> [--config FILE] [--field value …] [--dry-run]`.

Flags are made from the flow's configuration class; nothing is parsed by hand.
"""

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, PydanticBaseSettingsSource, SettingsError

from data.errors import AutodidactError
from tasks.environment import prepare

FLOWS = {
    "rest-em": ("flows.rest_em", "RestEM", "rest_em", "learn from own correct answers"),
    "sft": ("flows.sft", "SFT", "sft", "learn gold answers"),
    "dpo": ("flows.dpo", "DPO", "dpo", "learn from pairs of a better and a worse answer"),
    "reward-model": ("flows.reward_model", "RewardModel", "reward_model", "learn from pairs to judge answers"),
    "spin": ("flows.spin", "Spin", "spin", "learn to tell gold answers from own ones"),
}
COMMANDS = {
    "data": ("flows.datasets", "data", "look at a data set before a loop takes it, or turn it into rows"),
    "runs": ("flows.history", "runs", "list runs with their state on disk"),
    "trace": ("flows.history", "trace", "follow a training example back to where it came from"),
    "compare": ("flows.history", "compare", "set two runs side by side on the same problems"),
    "verify": ("flows.upkeep", "verify", "compare a run's files with what its stages wrote"),
    "reconcile": ("flows.upkeep", "reconcile", "close what a killed process left open in MLflow and Prefect"),
    "promote": ("flows.upkeep", "promote", "make a version of a registered model its champion"),
    "rollback": ("flows.upkeep", "rollback", "make the champion before it champion again"),
    "up": ("deployments.services", "up", "start Prefect, MLflow and a worker, and register the deployments"),
    "down": ("deployments.services", "down", "stop what `up` started"),
    "status": ("deployments.services", "status", "show which services run"),
}


class UsageError(AutodidactError):
    """The command line or the configuration file cannot be used as it is."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"{message}. See {self.prog} --help.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script. Returns the exit code: 0 done, 1 the run failed, 2 bad input."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except AutodidactError as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return error.exit_code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: autodidact FLOW [--config FILE] [--field value …] [--dry-run] [--on-drift …]\n\nflows:")
        for name, (_, _, _, description) in FLOWS.items():
            print(f"  {name:<12} {description}")
        print("\ncommands:")
        for name, (_, _, description) in COMMANDS.items():
            print(f"  {name:<12} {description}")
        print("\nautodidact FLOW --help lists every setting.")
        return 0
    name, *rest = arguments
    if name in COMMANDS:
        module_name, function, _ = COMMANDS[name]
        return int(getattr(importlib.import_module(module_name), function)(rest))
    if name not in FLOWS:
        known = [*FLOWS, *COMMANDS]
        raise UsageError(f"there is no flow or command {name!r}{_nearest(name, known)}. There are {', '.join(known)}.")
    prepare(_runs_folder(rest))
    module_name, config_name, flow_name, _ = FLOWS[name]
    module = importlib.import_module(module_name)
    config, options = read_settings(getattr(module, config_name), rest, f"autodidact {name}")
    from flows.console import run_flow

    return run_flow(module, flow_name, config, options.dry_run, options.on_drift)


def read_settings(
    config_class: type[BaseModel], arguments: list[str], prog: str, of_a_loop: bool = True
) -> tuple[Any, argparse.Namespace]:
    """Configuration from the command line, over the YAML file, over the defaults.

    Args:
        of_a_loop: whether there are `--dry-run` and `--on-drift`.

    Raises:
        UsageError: an unknown flag or key (with the nearest right name), a wrong type or value, an unreadable file.
    """
    parser = _Parser(prog=prog, description=config_class.__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; flags win over it")
    if of_a_loop:
        parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
        parser.add_argument(
            "--on-drift",
            choices=["refuse", "rebuild", "accept"],
            default="refuse",
            help="what to do with finished stages that were made with other settings",
        )

    class Settings(config_class, BaseSettings):  # type: ignore[misc, valid-type]
        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    source: Any = CliSettingsSource(Settings, root_parser=parser, cli_hide_none_type=True, cli_avoid_json=True)
    known, unknown = parser.parse_known_args(arguments)
    flags = sorted(flag for action in parser._actions for flag in action.option_strings)
    for flag in unknown:
        if flag.startswith("-"):
            bare = flag.split("=")[0]
            raise UsageError(f"unknown setting {bare}{_nearest(bare, flags)}. {prog} --help lists all.")
    if unknown:
        raise UsageError(f"{' '.join(unknown)!r} belongs to no setting. Write --field value.")
    from_file = read_yaml(known.config) if known.config else {}
    try:
        source(parsed_args=known)
        merged = _merge(_by_field(config_class, from_file), source())
        return config_class.model_validate(merged), known
    except SettingsError as error:
        raise UsageError(str(error)) from None
    except ValidationError as error:
        raise UsageError(explain(error, config_class, known.config)) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file as a dictionary.

    Raises:
        UsageError: the file is missing, empty, or no YAML mapping.
    """
    if not path.is_file():
        raise UsageError(f"there is no configuration file {path}. It is looked for from {Path.cwd()}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {'nothing' if content is None else 'no mapping'}. Write key: value lines.")
    return content


def explain(error: ValidationError, config_class: type[BaseModel], file: Path | None) -> str:
    """One line per problem: which field, what is wrong, what was given, and the nearest right name of a key."""
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        field = ".".join(location)
        if problem["type"] == "extra_forbidden":
            names = _field_names(config_class, location[:-1])
            lines.append(f"unknown setting {field}{_nearest(location[-1], names)}")
        else:
            given = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{field + ': ' if field else ''}{message}{given}")
    where = f"{file} and the command line" if file else "the command line"
    return f"the settings from {where} cannot be used:\n  " + "\n  ".join(lines)


def _field_names(config_class: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        config_class = config_class.model_fields[part].annotation  # type: ignore[assignment]
    return list(config_class.model_fields)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _by_field(config_class: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Settings with every one of two names under its first. One that is given under both stays, and is refused."""
    second = {
        str(alias): name
        for name, field in config_class.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for alias in field.validation_alias.choices
        if alias != name
    }
    return {second[key] if key in second and second[key] not in values else key: v for key, v in values.items()}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _runs_folder(arguments: list[str]) -> Path:
    """The runs folder has to be known before Prefect is imported, which reads its home when it is."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--runs_dir", "--runs-dir", type=Path)
    known, _ = parser.parse_known_args(arguments)
    if known.runs_dir:
        return Path(known.runs_dir)
    from_file = read_yaml(known.config) if known.config else {}
    given = from_file.get("runs_dir")
    return Path(given if isinstance(given, str) else "runs")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(main())
