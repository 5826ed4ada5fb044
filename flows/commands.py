"""What the commands that look at runs have in common: the folder of runs as an option, and errors in plain words."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from tasks.catalogue import QueryError
from tasks.contract import CorruptStageError
from tasks.registry import RegistryError
from tasks.run import RunDirectoryError
from tasks.tracking import HistoryError


class CommandParser(argparse.ArgumentParser):
    """The parser of `autodidact <command>`, with `--runs_dir`."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(prog=f"autodidact {command}", description=description, allow_abbrev=False)
        self.add_argument(
            "--runs_dir", "--runs-dir", type=Path, default=Path("runs"), help="folder that holds all runs"
        )


def reported(work: Callable[[], int]) -> int:
    """The exit code of a command: 2, with the error in plain words, if what it is asked cannot be done."""
    try:
        return work()
    except (CorruptStageError, HistoryError, QueryError, RegistryError, RunDirectoryError) as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return 2
