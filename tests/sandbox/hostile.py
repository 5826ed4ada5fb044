"""The hostile programs of `hostile.txt`, by name."""

import re
from pathlib import Path

# What an honest but wrong one looks like; most of the others put it behind an attack.
WRONG = "def double(x):\n    return x + 1\n"

_TEXT = Path(__file__).with_suffix(".txt").read_text()
_PROGRAM = re.compile(r"^=== ([^\n]+)\n(.*?)(?=^(?:===|###) |\Z)", re.MULTILINE | re.DOTALL)
HOSTILE = {
    name: code.strip("\n").replace("<WRONG>", WRONG).replace("<NUL>", "\0") for name, code in _PROGRAM.findall(_TEXT)
}
