"""The console script `autodidact`: it answers Ctrl-C from its first line, and then hands over to `cli.py`."""

import _signal  # what `signal` wraps, which takes some hundredths of a second to import
import atexit
import os
import sys
from types import FrameType

STOPPED = 130
PACKAGES = ("deployments", "tasks", "models", "data")


def main() -> int:
    """Returns the exit code, of which `flows/commands/exits.py` tells."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not in a shell's background job
        _signal.signal(_signal.SIGINT, leave)
        # The last thing that is done before Python would take the handler away: Ctrl-C comes too late then.
        atexit.register(_signal.signal, _signal.SIGINT, _signal.SIG_IGN)
    if shadow := _shadow():
        print(f"autodidact: {shadow}", file=sys.stderr)
        return 2
    from flows.commands.cli import main as run

    return run()


def leave(number: int, frame: FrameType | None) -> None:
    """End at once, where there is nothing to tidy up. An exception in the middle of an import might be swallowed."""
    os.write(2, b"autodidact: stopped.\n")
    os._exit(STOPPED)


def _shadow() -> str | None:
    """What hides a package of this project, if anything does. Before that is known none of them can be imported."""
    import importlib.util
    from pathlib import Path

    ours = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        place = found.origin if found else None
        if place is None or Path(place).resolve() != ours / package / "__init__.py":
            return (
                f"Python finds {place or 'a folder without __init__.py'} where its own package {package} should be. A "
                f"folder in PYTHONPATH has a module of that name. Unset PYTHONPATH, or rename that module."
            )
    return None
