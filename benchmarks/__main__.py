"""`python -m benchmarks [NAME…]`: run the named ones: graders, scoring, rewards, generation, preference,
likelihood, demo, formatting, spin, crashes, memory.

By default all that show speed, memory and right verdicts: not spin, which shows what is learned, not the crash test,
which takes an hour, and not memory, which needs a GPU.
"""

import sys
from importlib import import_module
from pathlib import Path

from tasks.environment import prepare

NAMES = ("graders", "scoring", "rewards", "generation", "preference", "likelihood", "demo", "formatting")
BY_NAME = ("spin", "crashes", "memory")

if __name__ == "__main__":
    prepare(Path("runs"))
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES + BY_NAME:
            sys.exit(f"There is no benchmark {name!r}; choose from {', '.join(NAMES + BY_NAME)}.")
        import_module(f"benchmarks.{name}").main()
