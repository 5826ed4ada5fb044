"""What the commands that look at runs have in common: the folder of runs as an option."""

from pathlib import Path

from flows.commands.settings import Parser
from flows.commands.yaml_file import path_at_home


class CommandParser(Parser):
    """The parser of `autodidact <command>`, with `--runs_dir`."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(f"autodidact {command}", description)
        self.add_argument(
            "--runs_dir", "--runs-dir", type=path_at_home, default=Path("runs"), help="folder that holds all runs"
        )
