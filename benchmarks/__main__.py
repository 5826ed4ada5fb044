"""`python -m benchmarks [NAME…]`: run the named ones: graders, scoring, rewards, generation, preference,
likelihood, demo, formatting, demos, spin, crashes, memory.

By default all that show speed, memory and right verdicts: not demos and spin, which show what is learned, not the crash
test, which takes an hour, and not memory, which needs a GPU. What begins with a dash is an option of the one named:
`python -m benchmarks demos --help`.
"""

import sys
from importlib import import_module
from pathlib import Path

from tasks.stage.environment import prepare

NAMES = ("graders", "scoring", "rewards", "generation", "preference", "likelihood", "demo", "formatting")
BY_NAME = ("demos", "spin", "crashes", "memory")

if __name__ == "__main__":
    prepare(Path("runs"))
    first = next((i for i, argument in enumerate(sys.argv) if argument.startswith("-")), len(sys.argv))
    names, sys.argv[1:] = sys.argv[1:first], sys.argv[first:]
    for name in names or NAMES:
        if name not in NAMES + BY_NAME:
            sys.exit(f"There is no benchmark {name!r}; choose from {', '.join(NAMES + BY_NAME)}.")
        import_module(f"benchmarks.{name}").main()
