"""The commands that maintain runs and models: `autodidact reconcile`, `verify`, `promote` and `rollback`."""

from collections.abc import Sequence

from flows.commands.console import say
from flows.commands.parser import CommandParser
from tasks.history.reconcile import reconcile as close_what_is_stale
from tasks.history.runs import find_run
from tasks.history.verify import verify_run
from tasks.stage.environment import prepare
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
    damaged = verify_run(find_run(told.runs_dir, told.run))
    say("\n".join(damaged) if damaged else f"Every file of {told.run} is unchanged.")
    return 1 if damaged else 0


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
