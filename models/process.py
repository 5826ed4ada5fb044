"""How a model program's process begins and ends: what takes long there and changes nothing is left out."""

import atexit
import gc
import os
import sys
from types import TracebackType
from typing import NoReturn

from data.errors import AutodidactError


def keep_imports() -> None:
    """Collect garbage again, which was off while the program imported, but not among what was imported.

    To look there takes long and finds nothing. A program that fails does it after all as it ends, or bindings would
    print a page of leaks below its traceback.
    """
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)


def fail_plainly() -> None:
    """Have an error that says itself what happened end this process without a traceback above it."""
    sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, AutodidactError):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def end() -> NoReturn:
    """End the process, once everything is on disk: to take apart what was imported would only cost seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
