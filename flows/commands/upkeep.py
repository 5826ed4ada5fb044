"""The commands that maintain runs and models: `autodidact reconcile`, `verify`, `clean`, `promote` and `rollback`."""

import argparse
import re
import sys
from collections.abc import Sequence

from data.errors import UsageError
from data.keeping import KEEP_PATTERN
from flows.commands.parser import CommandParser
from flows.commands.printing import format_bytes, say
from tasks.history.clean import cleared
from tasks.history.reconcile import reconcile as close_what_is_stale
from tasks.history.runs import find_run
from tasks.history.verify import freed_in, verify_run
from tasks.stage.disks import explain_disk_errors
from tasks.stage.environment import prepare
from tasks.stage.freed import room_made, weights_of
from tasks.tracking.champion import require_checkpoint
from tasks.tracking.mlflow import open_registry, reaching, tracking_uri


def reconcile(arguments: Sequence[str]) -> int:
    """Close what killed processes left open in MLflow and Prefect, and report what was done."""
    told = CommandParser("reconcile", reconcile.__doc__).parse_args(arguments)
    prepare(told.runs_dir)
    done = close_what_is_stale(told.runs_dir)
    say("\n".join(done) if done else "Nothing was left open.")
    return 0


def verify(arguments: Sequence[str]) -> int:
    """Check every file of a run against the SHA-256 in its stage's manifest."""
    parser = CommandParser("verify", verify.__doc__)
    parser.add_argument("run", metavar="RUN")
    told = parser.parse_args(arguments)
    directory = find_run(told.runs_dir, told.run)
    damaged, freed = verify_run(directory), freed_in(directory)
    for sentence in (*damaged, *freed):
        say(sentence)
    if not damaged:
        say(f"Every {'other ' if freed else ''}file of {told.run} is unchanged.")
    return 1 if damaged else 0


def clean(arguments: Sequence[str]) -> int:
    """Free the disk of a run's checkpoints except its best, after asking. Measurements and training rows stay."""
    parser = CommandParser("clean", clean.__doc__)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument(
        "--keep", type=_keep, default="best", metavar="best|last N", help="what stays; last-3 is last 3 without a space"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    told = parser.parse_args(arguments)
    prepare(told.runs_dir)
    directory = find_run(told.runs_dir, told.run)
    with explain_disk_errors(f"clean {told.run}", directory), cleared(directory, told.keep) as found:
        for number, why in found.kept.items():
            say(f"stays: iteration {number}, {why}")
        for stage in found.freed.values():
            say(f"goes:  {stage / 'policy'}, {format_bytes(room_made(weights_of(stage)))} of weights")
        if not found.freed:
            say(f"Nothing of {told.run} is left to free.")
            return 0
        if not (told.yes or _agreed(f"Free {format_bytes(found.room)} for good?")):
            say("Nothing was freed.")
            return 0
        for stage, freed in found.free(f"clean --keep {told.keep}"):
            say(f"{stage}: {freed}, {format_bytes(freed.bytes)}.")
    return 0


def _keep(text: str) -> str:
    if text == "all" or not re.fullmatch(KEEP_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither best nor last N, such as last-3")
    return text


def _agreed(question: str) -> bool:
    """Ask the person at the terminal.

    Raises:
        UsageError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(
            "clean asks before it frees anything, and there is no terminal to ask at. Nothing was freed.",
            what_next="Give --yes to free what is listed above.",
        )
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def promote(arguments: Sequence[str]) -> int:
    """Make a version of a registered model its champion."""
    parser = CommandParser("promote", promote.__doc__)
    parser.add_argument("model", metavar="MODEL", help="name of the registered model, such as autodidact-demo")
    parser.add_argument("version", metavar="VERSION", help="number of the version")
    told = parser.parse_args(arguments)
    prepare(told.runs_dir)
    with reaching(tracking_uri(told.runs_dir)):
        registry = open_registry(told.runs_dir)
        version, before = registry.version(told.model, told.version), registry.champion(told.model)
        require_checkpoint(version)
        registry.crown(version, "hand")
    say(f"{version} is now the champion; before, it was {before or 'none'}.")
    return 0


def rollback(arguments: Sequence[str]) -> int:
    """Make the previous champion the champion again."""
    parser = CommandParser("rollback", rollback.__doc__)
    parser.add_argument("model", metavar="MODEL", help="name of the registered model")
    told = parser.parse_args(arguments)
    prepare(told.runs_dir)
    with reaching(tracking_uri(told.runs_dir)):
        say(f"{open_registry(told.runs_dir).roll_back(told.model)} is the champion again.")
    return 0
