"""How a model program's process begins and ends: what takes long there and changes nothing is left out."""

import atexit
import gc
import os
import sys
from typing import NoReturn


def keep_imports() -> None:
    """Collect garbage again, which was off while the program imported, but not among what was imported.

    To look there takes long and finds nothing. A program that fails does it after all as it ends, or bindings would
    print a page of leaks below its traceback.
    """
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)


def end() -> NoReturn:
    """End the process, once everything is on disk: to take apart what was imported would only cost seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
