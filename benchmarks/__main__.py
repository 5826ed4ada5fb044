"""`python -m benchmarks [NAME…]`: run the named ones: formatting, scoring, rewards, generation, preference, spin, demo,
crashes.

By default all but the crash test, which takes an hour.
"""

import sys
from importlib import import_module
from pathlib import Path

from tasks.environment import prepare

NAMES = ("formatting", "scoring", "rewards", "generation", "preference", "spin", "demo")
BY_NAME = ("crashes",)

if __name__ == "__main__":
    prepare(Path("runs"))
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES + BY_NAME:
            sys.exit(f"There is no benchmark {name!r}; choose from {', '.join(NAMES + BY_NAME)}.")
        import_module(f"benchmarks.{name}").main()
