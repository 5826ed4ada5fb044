"""`python -m benchmarks [NAME…]`: run the named benchmarks, by default those of speed, memory and verdicts.

The others run only by name: demos, methods, adapters, spin and identity show what is learned, invariance takes
minutes, crashes an hour, memory needs a GPU. Options after a name are that benchmark's own: `python -m benchmarks demos
--help`.
"""

import argparse
import ast
import sys
from importlib import import_module
from pathlib import Path

from tasks.stage.environment import prepare

NAMES = (
    "graders",
    "latex",
    "scoring",
    "rewards",
    "generation",
    "batching",
    "until_kept",
    "rows",
    "attention",
    "on_policy",
    "copies",
    "preference",
    "likelihood",
    "demo",
    "formatting",
)
BY_NAME = ("demos", "methods", "adapters", "spin", "identity", "invariance", "crashes", "memory")


def main() -> None:
    first = next((i for i, argument in enumerate(sys.argv) if argument.startswith("-")), len(sys.argv))
    parser = _parser()
    names = parser.parse_args(sys.argv[1:first] or sys.argv[1:]).names
    for name in names:
        if name not in NAMES + BY_NAME:
            parser.error(f"there is no benchmark {name!r}; choose from {', '.join(NAMES + BY_NAME)}")
    sys.argv[1:] = sys.argv[first:]
    prepare(Path("runs"))
    for name in names or NAMES:
        import_module(f"benchmarks.{name}").main()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        description="Run benchmarks, which measure side by side and print tables.",
        epilog="\n".join(["run by default:", *map(_line, NAMES), "\nrun only by name:", *map(_line, BY_NAME)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    help = "a benchmark; options after its name are its own: `demos --help`"
    parser.add_argument("names", nargs="*", metavar="NAME", help=help)
    return parser


def _line(name: str) -> str:
    """A benchmark with the first line of its docstring, without importing it."""
    about = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))) or ""
    return f"  {name:<12} {about.partition(chr(10))[0]}"


if __name__ == "__main__":
    main()
