"""The console script `autodidact`: handles Ctrl-C from its first line, then hands over to `cli.py`."""

import _signal  # `signal` wraps it, and takes some hundredths of a second to import
import atexit
import os
import sys
from types import FrameType

STOPPED = 130
PACKAGES = ("deployments", "tasks", "models", "data")


def main() -> int:
    """Return the exit code; `flows/commands/exits.py` lists them."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not in a shell's background job
        _signal.signal(_signal.SIGINT, leave)
        # Runs last, before Python removes the handler: by then it is too late for Ctrl-C.
        atexit.register(_signal.signal, _signal.SIGINT, _signal.SIG_IGN)
    if shadow := _shadow():
        print(f"autodidact: {shadow}", file=sys.stderr)
        return 2
    from flows.commands.cli import main as run

    return run()


def leave(number: int, frame: FrameType | None) -> None:
    """End at once, while there is nothing to clean up. An exception during an import might be swallowed."""
    os.write(2, b"autodidact: stopped.\n")
    os._exit(STOPPED)


def _shadow() -> str | None:
    """Describe what hides a package of this project, if anything. None may be imported before this check."""
    import importlib.util
    from pathlib import Path

    ours = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        place = found.origin if found else None
        if place is None or Path(place).resolve() != ours / package / "__init__.py":
            return (
                f"Python finds {place or 'a folder without __init__.py'} instead of this project's {package}. A "
                f"folder in PYTHONPATH has a module of that name. Unset PYTHONPATH, or rename that module."
            )
    return None
