"""A parser with a flag for every setting of a class, made by pydantic-settings, and its short and long help."""

import argparse
from collections.abc import Iterable
from types import NoneType
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, CliSettingsSource, PydanticBaseSettingsSource

from flows.commands.help_text import UNGROUPED, Entry, Setting, paragraph, section, settings_of
from flows.commands.parser import Parser
from flows.commands.yaml_file import path_at_home
from tasks.settings.leading import leading

Told = tuple[Setting, argparse.Action]


class SettingsParser(Parser):
    """A parser with a flag for each setting of a class. --help shows the main ones, --help-all every one.

    Args:
        about: what the command does; by default the docstring of the class.
        of_a_loop: whether to add `--dry-run` and `--on-drift`.
    """

    def __init__(self, config_class: type[BaseModel], prog: str, about: str | None = None, of_a_loop: bool = True):
        super().__init__(prog, about or config_class.__doc__, add_help=False)
        self.config_class = config_class
        self._add_options(of_a_loop)
        self.options = list(self._actions)

        class Settings(config_class, BaseSettings):  # type: ignore[misc, valid-type]
            @classmethod
            def settings_customise_sources(  # type: ignore[override]
                cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return (init_settings,)

        self.source: Any = CliSettingsSource(
            Settings,
            root_parser=self,
            cli_hide_none_type=True,
            cli_avoid_json=True,
            cli_kebab_case="no_enums",  # only names: values and dictionary keys are the user's
        )
        actions = {action.dest: action for action in self._actions}
        self.settings = {s.name: (s, actions[s.name]) for s in settings_of(config_class) if s.name in actions}
        for setting, action in self.settings.values():
            action.help = f"{setting.about} {setting.standing}".replace("%", "%%")
            action.metavar = setting.metavar
            if setting.field.annotation is NoneType or (setting.is_group and not setting.can_be_none):
                action.help = argparse.SUPPRESS

    def _add_options(self, of_a_loop: bool) -> None:
        self.add_argument(
            "--config", type=path_at_home, metavar="FILE", help="YAML file of settings; flags override it"
        )
        if of_a_loop:
            self.add_argument("--dry-run", action="store_true", help="show what would be done, without doing it")
            self.add_argument(
                "--on-drift",
                choices=["refuse", "rebuild", "accept"],
                default="refuse",
                help="what to do with finished stages that were made with other settings (default: refuse)",
            )
        self.add_argument("-h", "--help", action="help", help="show the main settings")
        self.add_argument("--help-all", action=_HelpAll, help="show every setting")

    def read_none(self, known: argparse.Namespace) -> dict[str, Any]:
        """Turn `none`, as in help and descriptions, into what pydantic-settings reads as None.

        Returns:
            Collections that are to be empty, by dotted name; pydantic-settings has no word for that, and they are
            removed from what it reads.
        """
        emptied = {}
        for setting, action in self.settings.values():
            given = getattr(known, action.dest, None)
            if given in ("none", ["none"]) and setting.default in ((), {}):
                emptied[setting.name] = setting.default
                setattr(known, action.dest, None)
            elif given == "none" and setting.can_be_none and "none" not in setting.choices:
                setattr(known, action.dest, self.source.cli_parse_none_str)
        return emptied

    def format_help(self) -> str:
        """Usage, what the command does, and its main settings."""
        shown = [self.settings[name] for name in leading(self.config_class) if name in self.settings]
        parts = (
            f"usage: {self.prog} [--config FILE] [--SETTING VALUE …]",
            paragraph(self.description or ""),
            section("settings:", _entries(shown), lines=2),
            self._options_section(),
            f"{self.prog} --help-all shows all {len(self._shown())} settings.",
        )
        return "\n\n".join(parts) + "\n"

    def format_help_all(self) -> str:
        """Every setting, by group."""
        parts = [paragraph(self.config_class.__doc__ or ""), self._options_section()]
        under: dict[str, list[Told]] = {}
        for found in self._shown():
            under.setdefault(found[0].heading, []).append(found)
        for heading in self._headings(under):
            about = "" if heading in UNGROUPED else f" {self.settings[heading][0].field.description}"
            parts.append(section(f"{heading.replace('_', '-')}:{about}", _entries(under[heading])))
        return "\n\n".join(parts) + "\n"

    def _shown(self) -> list[Told]:
        return [found for found in self.settings.values() if found[1].help != argparse.SUPPRESS]

    def _headings(self, found: Iterable[str]) -> list[str]:
        """Headings in order: settings in no group, then groups as in the main settings, each before its subgroups."""
        first = [name.partition(".")[0] for name in leading(self.config_class)]

        def rank(heading: str) -> tuple[int, int]:
            if heading in UNGROUPED:
                return -1, UNGROUPED.index(heading)
            top = heading.partition(".")[0]
            return first.index(top) if top in first else len(first), list(self.settings).index(heading)

        return sorted(found, key=rank)

    def _options_section(self) -> str:
        return section("options:", [(_invocation(action), action.help or "", "") for action in self.options])


class _HelpAll(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        assert isinstance(parser, SettingsParser)
        print(parser.format_help_all(), end="")
        parser.exit()


def _entries(found: list[Told]) -> list[Entry]:
    return [(_invocation(action), setting.about, setting.standing) for setting, action in found]


def _invocation(action: argparse.Action) -> str:
    value = action.metavar or (f"{{{','.join(action.choices)}}}" if action.choices else "")
    return f"{', '.join(action.option_strings)} {value}".rstrip()
