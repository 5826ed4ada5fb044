"""The command `autodidact completion`: a script with which a shell completes commands, flags and their values.

shtab makes a static script from the parsers of the flags. argcomplete would run this program at every Tab, and a flow's
settings take seconds to import. So the script knows the flows that existed when it was made.
"""

import argparse
import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from inspect import cleandoc
from pathlib import Path

import shtab

from data.errors import UsageError
from flows.commands import datasets
from flows.commands.cli import COMMANDS
from flows.commands.flow_table import all_flows
from flows.commands.parser import Parser, parser_of
from flows.commands.settings_parser import SettingsParser, Told
from tasks.stage.environment import prepare

SHELLS = ("bash", "zsh", "fish")
FILES = {"FILE": shtab.FILE, "PATH": shtab.FILE, "MODEL": shtab.FILE, "FOLDER": shtab.DIRECTORY}  # by metavar
Known = tuple[str, str, argparse.ArgumentParser]  # a name, what it does, its parser


def completion(arguments: Sequence[str]) -> int:
    """Print the script with which a shell completes `autodidact`. Repeat after an update.

    bash   autodidact completion bash > ~/.local/share/bash-completion/completions/autodidact
    zsh    autodidact completion zsh > FOLDER/_autodidact, in a folder of $fpath
    fish   autodidact completion fish > ~/.config/fish/completions/autodidact.fish
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser("autodidact completion", cleandoc(completion.__doc__ or ""), formatter_class=raw)
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    told = parser.parse_args(arguments)
    prepare(Path("runs"), dry_run=True)
    print(shtab.complete(whole_parser(), told.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """A parser of all flows and commands. It parses nothing; shtab reads its contents."""
    whole = argparse.ArgumentParser("autodidact", add_help=False)
    whole.add_argument("-h", "--help", action="help", help="list flows and commands")
    whole.add_argument("--version", action="version", help="print the version")
    _add(whole, [*_flows(), *_commands()])
    return whole


def _flows() -> Iterator[Known]:
    for name, flow in all_flows().items():
        with suppress(UsageError):  # a broken flow of another package
            yield name, flow.help, SettingsParser(flow.load().settings, f"autodidact {name}")


def _commands() -> Iterator[Known]:
    for name, (module, function, about) in COMMANDS.items():
        command = getattr(importlib.import_module(module), function)
        yield name, about, _data_parser() if command is datasets.data else parser_of(command)


def _data_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("autodidact data")
    parsers = {name: SettingsParser(settings, name, of_a_loop=False) for name, settings in datasets.SETTINGS.items()}
    _add(parser, ((name, datasets.COMMANDS[name], known) for name, known in parsers.items()))
    return parser


def _add(parser: argparse.ArgumentParser, found: Iterable[Known]) -> None:
    """Add parsers as subcommands, with the possible values of their flags."""
    within = parser.add_subparsers()
    for name, about, known in found:
        for action in known._actions:
            _say_values(action, known.settings if isinstance(known, SettingsParser) else {})
        within.add_parser(name, help=about, parents=[known], add_help=False)


def _say_values(action: argparse.Action, settings: Mapping[str, Told]) -> None:
    """Tell shtab a flag's possible values. The parser of a flow itself leaves them to pydantic."""
    if action.dest in settings:
        setting, _ = settings[action.dest]
        action.choices = [*setting.choices, *["none"] * setting.can_be_none] or None
    if files := FILES.get(str(action.metavar)):
        action.choices = None
        action.complete = files  # type: ignore[attr-defined]
