"""`python -m benchmarks [scoring] [generation] [preference] [spin] [demo]`: run the named ones, by default all."""

import sys
from importlib import import_module
from pathlib import Path

from tasks.environment import prepare

NAMES = ("scoring", "generation", "preference", "spin", "demo")

if __name__ == "__main__":
    prepare(Path("runs"))
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            sys.exit(f"There is no benchmark {name!r}; choose from {', '.join(NAMES)}.")
        import_module(f"benchmarks.{name}").main()
