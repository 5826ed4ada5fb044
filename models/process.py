"""How a model program's process begins and ends, without slow steps that change nothing."""

import atexit
import gc
import os
import sys
from types import TracebackType
from typing import NoReturn

from data.errors import AutodidactError


def keep_imports() -> None:
    """Turn garbage collection, off during imports, on again, but exempt the imported objects.

    Scanning them takes long and finds nothing. A failing program still scans them at exit, or native bindings would
    print a page of leaks below its traceback.
    """
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)


def fail_plainly() -> None:
    """End this process without a traceback on errors whose message explains them."""
    sys.excepthook = _say


def _say(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, AutodidactError):
        print(error, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def end() -> NoReturn:
    """End the process once everything is on disk: tearing down imported modules would only cost seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
