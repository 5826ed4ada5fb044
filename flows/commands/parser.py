"""The parser of every command: flags are spelled with hyphens, and every error is a UsageError."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from data.errors import UsageError
from flows.commands.yaml_file import path_at_home


class Parser(argparse.ArgumentParser):
    """A parser that prints help like any other output, and also accepts the old spelling of flags."""

    def __init__(self, prog: str, description: str | None = None, **options: Any) -> None:
        super().__init__(prog, description=description, allow_abbrev=False, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; a notice on stderr gives the spelling of flags that were written with underscores."""
        if _Shown.wanted:
            raise _Shown(self)
        arguments, renamed = self.with_hyphens(sys.argv[1:] if args is None else args)
        if renamed:
            print(
                f"autodidact: flags are spelled with hyphens: {', '.join(renamed)}. Underscores still work.",
                file=sys.stderr,
            )
        return super().parse_known_args(arguments, namespace)

    def with_hyphens(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """The arguments with every flag in its current spelling, and the flags that changed. Values stay."""
        found: list[str] = []
        renamed: list[str] = []
        for argument in arguments:
            name, equals, value = argument.partition("=")
            new = name.replace("_", "-")
            if name.startswith("--") and new != name and "--" not in found and new in self._option_string_actions:
                renamed.append(new)
                argument = new + equals + value
            found.append(argument)
        return found, list(dict.fromkeys(renamed))

    def print_help(self, file: Any = None) -> None:
        """Print the help. argparse itself would hide a closed pipe or a full disk."""
        print(self.format_help(), end="", file=file)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}.", what_next=f"See {self.prog} --help.")


class CommandParser(Parser):
    """The parser of a command that looks at runs, with `--runs-dir`."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(f"autodidact {command}", description)
        self.add_argument(
            "--runs-dir",
            type=path_at_home,
            default=Path("runs"),
            metavar="FOLDER",
            help="folder that holds all runs (default: runs)",
        )


def port_number(text: str) -> int:
    """A TCP port, for `type` of an argument."""
    if text.isascii() and text.isdigit() and 0 < int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; ports are numbers from 1 to 65535")


class _Shown(BaseException):
    """Carries a parser that was about to read the flags of its command."""

    wanted = False

    def __init__(self, parser: Parser) -> None:
        self.parser = parser


def parser_of(command: Callable[[list[str]], int]) -> Parser:
    """The parser of a command, which is stopped when it would read its flags: the first thing it does."""
    _Shown.wanted = True
    try:
        command([])
    except _Shown as shown:
        return shown.parser
    finally:
        _Shown.wanted = False
    raise AssertionError(f"{command} reads no flags")
