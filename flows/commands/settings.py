"""The settings of a command: its flags over a YAML file over the defaults of its configuration class.

Flags are generated from that class; nothing is parsed by hand.
"""

import argparse
import difflib
import reprlib
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_settings import SettingsError

from data.errors import UsageError
from flows.commands.config_file import merge, read_config
from flows.commands.help_text import as_flag
from flows.commands.parser import Parser
from flows.commands.settings_parser import SettingsParser
from flows.commands.yaml_file import path_at_home


def read_settings(
    config_class: type[BaseModel],
    arguments: list[str],
    prog: str,
    of_a_loop: bool = True,
    flow: str | None = None,
    about: str | None = None,
) -> tuple[Any, argparse.Namespace]:
    """Read the configuration from the command line, over the YAML file, over the defaults.

    Args:
        of_a_loop, about: see `SettingsParser`.
        flow: the flow that the YAML file must be for, if it names one; None: any.

    Raises:
        UsageError: an unknown flag or key (with the nearest right name), a wrong type or value, an unreadable file.
    """
    parser = SettingsParser(config_class, prog, about, of_a_loop)
    known, unknown = parser.parse_known_args(arguments)
    flags = sorted(flag for action in parser._actions for flag in action.option_strings)
    for flag in unknown:
        if flag.startswith("-"):
            bare = flag.split("=")[0]
            near = nearest(bare.replace("_", "-"), flags)
            raise UsageError(f"unknown setting {bare}{near}.", what_next=f"{prog} --help-all lists all.")
    if unknown:
        raise UsageError(f"{' '.join(unknown)!r} belongs to no setting.", what_next="Write --setting value.")
    emptied = parser.read_none(known)
    from_file = read_config(known.config, flow).settings if known.config else {}
    try:
        parser.source(parsed_args=known)
        merged = merge(_by_field(config_class, from_file), parser.source())
        for name, empty in emptied.items():
            _set(merged, name, empty)
        return config_class.model_validate(merged), known
    except SettingsError as error:
        raise _unread(error, parser, prog) from None
    except ValidationError as error:
        raise explain(error, config_class, known) from None


def _unread(error: SettingsError, parser: SettingsParser, prog: str) -> UsageError:
    name = next((name for name in parser.settings if f" for {name}:" in str(error)), None)
    if name and (metavar := parser.settings[name][0].metavar):
        mend = f"Write {as_flag(name)} {metavar}, once for each"
        return UsageError(f"{as_flag(name)}: the value cannot be read.", what_next=f"{mend}, or JSON.")
    return UsageError(
        f"a group of settings got a single value ({error}).",
        what_next=f"Write --group.name value; {prog} --help-all lists all.",
    )


def _set(settings: dict[str, Any], name: str, value: Any) -> None:
    """Set a setting by its dotted name. A group that is none or missing is made."""
    *groups, last = name.split(".")
    for group in groups:
        inner = dict(settings.get(group) or {})
        settings[group] = inner
        settings = inner
    settings[last] = value


def explain(error: ValidationError, config_class: type[BaseModel], known: argparse.Namespace) -> UsageError:
    """An error with one line per problem: which field, what is wrong, what was given, the nearest known key."""
    lines = []
    for problem in error.errors():
        location = [str(part) for part in problem["loc"]]
        field = ".".join(location)
        if problem["type"] == "extra_forbidden":
            names = _field_names(config_class, location[:-1])
            lines.append(f"unknown setting {field}{nearest(location[-1], names)}")
        else:
            given = "" if isinstance(problem["input"], dict) else f", got {reprlib.repr(problem['input'])}"
            message = problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float | date):
                given += f". YAML reads that as {type(problem['input']).__name__}; put it in quotes"
            shown = as_flag(field) if hasattr(known, field) else field  # as the user wrote it
            lines.append(f"{shown + ': ' if field else ''}{message}{given}")
    where = f"{known.config} and the command line" if known.config else "the command line"
    return UsageError(f"the settings from {where} cannot be used:\n" + "\n".join(f"  {line}" for line in lines))


def _field_names(config_class: type[BaseModel], path: list[str]) -> list[str]:
    """The names of the settings at a path; empty if the path is not in a settings class."""
    for part in path:
        field = config_class.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        found = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if found is None:
            return []
        config_class = found
    return list(config_class.model_fields)


def nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def _by_field(config_class: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """Rename settings given by their second name to the first. A setting given by both stays, and is refused."""
    second = {
        str(alias): name
        for name, field in config_class.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for alias in field.validation_alias.choices
        if alias != name
    }
    return {second[key] if key in second and second[key] not in values else key: v for key, v in values.items()}


def first_look(arguments: list[str]) -> tuple[Path, bool]:
    """The runs folder, and whether this is a dry run: needed before Prefect is imported and creates its home folder."""
    parser = Parser("autodidact", add_help=False)
    parser.add_argument("--config", type=path_at_home)
    parser.add_argument("--runs-dir", type=path_at_home)
    parser.add_argument("--dry-run", "-h", "--help", "--help-all", action="store_true")
    known, _ = parser.parse_known_args(parser.with_hyphens(arguments)[0])
    if known.runs_dir:
        return Path(known.runs_dir), known.dry_run
    from_file = read_config(known.config).settings if known.config else {}
    given = from_file.get("runs_dir")
    return path_at_home(given if isinstance(given, str) else "runs"), known.dry_run
