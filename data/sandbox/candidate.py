"""The program that a candidate runs in, inside the sandbox. Nothing it says is trusted.

It gets the code over one pipe. A script is run and ends. Otherwise it then does what the tests ask for over two other
pipes: a call, an attribute, an item. Whatever the code does to this process only changes its own answers.
Run: python candidate.py LIMITS CODE [QUESTIONS ANSWERS], all but the first being descriptors.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
from types import ModuleType

TYPE_CHECKING = False  # typing and collections.abc take longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

HERE = __file__.rpartition("/")[0]
FILE = "solution.py"
STREAMS = {"/dev/stdout": 1, "/dev/fd/1": 1, "/dev/stderr": 2, "/dev/fd/2": 2, "/proc/self/fd/0": 0}


def main() -> None:
    for name, value in json.loads(sys.argv[1]).items():
        resource.setrlimit(getattr(resource, name), (value, value))
    sys.set_int_max_str_digits(0)
    code, *conversation = map(int, sys.argv[2:])
    with open(code, "rb") as file:
        told = json.loads(file.readline())
    sys.argv = [FILE]
    _offer_exit()
    _offer_streams()
    if not conversation:
        run(told["code"], told["supplied"], "__main__")
        return
    sys.path.insert(0, HERE)
    from answering import Answering

    sys.path.remove(HERE)
    Answering(*conversation).run(lambda: run(told["code"], told["supplied"], "candidate"))


def run(code: str, supplied: str, name: str) -> dict[str, Any]:
    """Run a candidate as an importable module of that name, and return what it defines."""
    module = ModuleType(name)
    sys.modules[name] = module
    module.__file__ = _saved(code)
    module.__dict__["__builtins__"] = builtins
    exec(compile(supplied, "supplied.py", "exec", dont_inherit=True), module.__dict__)
    exec(compile(code, FILE, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _saved(code: str) -> str:
    """The file of a candidate's own code."""
    try:
        with open(FILE, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(code)
    except OSError:
        pass  # without bubblewrap, the folder may be read-only: then it has a name but no file
    return os.path.abspath(FILE)


def _offer_exit() -> None:
    """Define what Python's `site` module defines, which is not imported."""
    from _sitebuiltins import Quitter, _Helper, _Printer

    builtins.exit, builtins.quit = Quitter("exit", ""), Quitter("quit", "")  # type: ignore[assignment]
    builtins.help, builtins.copyright = _Helper(), _Printer("copyright", sys.copyright)  # type: ignore[assignment]
    builtins.credits, builtins.license = _Printer("credits", ""), _Printer("license", "")  # type: ignore[assignment]


def _offer_streams() -> None:
    """Let `open` find the standard streams. In /dev there are no devices, which would be shared, but files."""
    really_open = builtins.open

    def open_stream(file: Any, *arguments: Any, **named: Any) -> Any:
        number = STREAMS.get(file) if isinstance(file, str) else None
        return really_open(file if number is None else os.dup(number), *arguments, **named)

    builtins.open = open_stream


if __name__ == "__main__":
    main()
