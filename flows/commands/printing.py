"""How commands print: text literally, so that nothing in it acts on the terminal, and sizes."""

from typing import Any

from rich.console import Console
from rich.text import Text

from data.text import visible


class PlainConsole(Console):
    """A terminal that prints text literally: no markup, no emoji codes, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704  # Rich calls this while handling the error, and would exit with code 1

    def render_str(self, text: str, **options: Any) -> Text:  # also for a table's cells and title
        return super().render_str(visible(text), **options)


def make_console() -> PlainConsole:
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=120)


def say(text: str = "") -> None:
    """Print a text literally, so nothing in it acts on the terminal."""
    print(visible(text))


def format_bytes(number: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e3:.0f} kB"
