"""The runs of a folder: what each holds and how far it is, by its configuration, manifests and lock.

Writes nothing, and needs no server: the disk is the truth.
"""

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from data.metrics import Interval, SetMetrics
from data.stopping import best_iteration, stop_reason
from tasks.contract import CorruptStageError, Finished, Manifest, load_finished
from tasks.evaluate import METRICS
from tasks.loop import StopConfig
from tasks.record import REPORT
from tasks.run import CONFIG, LOCK, SUMMARY, describe_holder

# What one iteration consists of, in order. The loops decide it; a test holds this table to their plans.
ITERATION = {
    "ReST-EM": ("generate", "score", "select", "train", "evaluate"),
    "SPIN": ("generate", "pair", "reference", "train", "evaluate"),
    "SFT": ("examples", "train", "evaluate"),
    "DPO": ("pairs", "reference", "train", "evaluate"),
}
# Runs that are no loops, with all of their stages.
WHOLE = {"Reward model": ("base", "iter-1/pairs", "iter-1/train", "iter-1/measure", "best")}
BEGINNING, END = ("problems", "base", "iter-0/evaluate"), ("best", "final/base", "final/best")


class QueryError(AutodidactError):
    """What is asked about the runs cannot be answered; the message says why and what to do next."""


@dataclass(frozen=True)
class Origin:
    """An artifact and the stage that made it. `name` is its path within the stage."""

    stage: str
    name: str

    @property
    def iteration(self) -> int:
        return iteration_of(self.stage)

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}" if self.name else self.stage


@dataclass(frozen=True)
class History:
    """A run directory as it is on disk. `broken` has what cannot be read, with what is wrong and what to do."""

    directory: Path
    config: dict[str, Any]
    stages: dict[str, Finished]
    accuracies: dict[int, Interval]
    broken: dict[str, str]

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def algorithm(self) -> str | None:
        """What made the run, such as a loop; None if it is none that this code knows."""
        found = self.config.get("algorithm")
        return found if found in ITERATION or found in WHOLE else None

    @cached_property
    def _artifacts(self) -> dict[str, list[Origin]]:
        """Every artifact that a stage holds, by digest. `best` holds links only: what it has was made elsewhere."""
        found: dict[str, list[Origin]] = {}
        for stage, finished in self.stages.items():
            outputs = finished.manifest.outputs
            if stage == "best" or not outputs:
                continue
            folders = {str(folder) for name in outputs for folder in list(Path(name).parents)[:-1]}
            for name in ("", *outputs, *sorted(folders)):
                found.setdefault(finished.artifact(name).require(), []).append(Origin(stage, name))
        return found

    def origin(self, digest: str, latest: int) -> Origin | None:
        """What has that digest, made in iteration `latest` or before; of several, the latest."""
        known = [origin for origin in self._artifacts.get(digest, ()) if origin.iteration <= latest]
        return max(known, key=lambda origin: origin.iteration, default=None)

    def path(self, origin: Origin) -> Path:
        return self.stages[origin.stage].path / origin.name

    def manifest(self, origin: Origin) -> Manifest:
        """The manifest of the stage that made it."""
        return self.stages[origin.stage].manifest

    def digest(self, origin: Origin) -> str:
        return self.stages[origin.stage].artifact(origin.name).require()


def iteration_of(stage: str) -> int:
    """The iteration a stage belongs to; those outside the iterations come before or after all, and count as 0."""
    found = re.match(r"iter-(\d+)/", stage)
    return int(found[1]) if found else 0


def run_directories(runs: Path) -> list[Path]:
    """The folders of `runs` that are runs: a run begins with a lock, and a copy without one has its problems.

    Raises:
        QueryError: there is no such folder.
    """
    if not runs.is_dir():
        raise QueryError(
            f"there is no folder {runs}, so there are no runs in it.",
            f"It is looked for from {Path.cwd()}.",
            "Start a run first, go to where its folder is, or name it with --runs_dir.",
        )
    return sorted(d for d in runs.iterdir() if d.is_dir() and ((d / LOCK).exists() or (d / "problems").is_dir()))


def find_run(runs: Path, name: str) -> Path:
    """The directory of a run.

    Raises:
        QueryError: there is none of that name; with those that there are.
    """
    known = run_directories(runs)
    if runs / name in known:
        return runs / name
    there = f"There are {', '.join(d.name for d in known)}." if known else "It has no runs yet."
    raise QueryError(f"{runs} has no run {name!r}.", what_next=f"{there} Another folder is named with --runs_dir.")


def open_history(runs: Path, name: str) -> History:
    """The history of the run of that name.

    Raises:
        QueryError: there is no such run, or a part of it cannot be read.
    """
    history = load_history(find_run(runs, name))
    if history.broken:
        raise QueryError(f"{history.name} is corrupt.", what_next=next(iter(history.broken.values())))
    return history


def load_history(directory: Path) -> History:
    """Read a run's configuration and manifests. What cannot be read is kept in `broken`, not raised."""
    stages: dict[str, Finished] = {}
    accuracies: dict[int, Interval] = {}
    broken: dict[str, str] = {}
    config: dict[str, Any] = {}
    try:
        config = _read_config(directory / CONFIG)
    except (OSError, ValueError, TypeError) as error:
        broken[CONFIG] = (
            f"{directory / CONFIG} cannot be read ({_first_line(error)}). Run the same command again: it is written "
            f"anew at every start."
        )
    for path in _stage_directories(directory):
        name = str(path.relative_to(directory))
        try:
            if (finished := load_finished(path)) is not None:
                stages[name] = finished
                if re.fullmatch(r"iter-\d+/evaluate", name):
                    metrics = SetMetrics.model_validate_json((path / "validation" / METRICS).read_text())
                    accuracies[iteration_of(name)] = metrics.greedy
        except CorruptStageError as error:
            broken[name] = str(error)
        except (OSError, ValueError) as error:
            broken[name] = (
                f"{path} cannot be read ({_first_line(error)}). See that you may read it, or delete it and run the "
                f"same command again to rebuild it."
            )
    return History(directory, config, stages, accuracies, broken)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    config = dict(json.loads(path.read_text()))
    StopConfig.model_validate(config.get("stop", {}))
    return config


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _stage_directories(directory: Path) -> list[Path]:
    """Where stages lie. Folders deeper down may hold a `manifest.json` too, but it is a model's own."""
    groups = [*directory.glob("iter-*"), directory / "final"]
    found = [directory / name for name in ("problems", "base", "best")]
    found += [path for group in groups for path in group.glob("[!.]*")]
    return sorted(path for path in found if path.is_dir())


# --- the state of a run


class State(StrEnum):
    FINISHED = "finished"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    CORRUPT = "corrupt"


@dataclass(frozen=True)
class RunState:
    """A line of the list of runs. `best` is the best iteration so far, `accuracy` its greedy validation pass@1."""

    name: str
    algorithm: str | None
    state: State
    detail: str
    iterations: int
    planned: int | None
    best: int | None
    accuracy: Interval | None
    size: int
    changed: datetime
    broken: dict[str, str]


def run_state(directory: Path) -> RunState:
    """What a run directory says of the run, without its flow's code."""
    history = load_history(directory)
    state, detail = _state(history)
    best = _best(history, state)
    size, changed = _footprint(directory)
    return RunState(
        name=history.name,
        algorithm=history.algorithm,
        state=state,
        detail=detail,
        iterations=max(history.accuracies, default=0),
        planned=history.config.get("iterations", 1) if history.config else None,
        best=best,
        accuracy=None if best is None else history.accuracies.get(best),
        size=size,
        changed=changed,
        broken=history.broken,
    )


def holder(directory: Path) -> str | None:
    """Who has the run open, or None.

    The lock is asked for as one reader among others, so that two who look at once do not take each other for a run.
    """
    lock = directory / LOCK
    if not lock.exists():
        return None
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return describe_holder(directory)


def expected_stages(algorithm: str, iterations: int) -> list[str]:
    """The stages of a run of so many iterations, in order."""
    if algorithm in WHOLE:
        return list(WHOLE[algorithm])
    numbers = range(1, iterations + 1)
    return [*BEGINNING, *(f"iter-{number}/{stage}" for number in numbers for stage in ITERATION[algorithm]), *END]


def _state(history: History) -> tuple[State, str]:
    half_done = _attempts(history.directory)
    if who := holder(history.directory):
        return State.RUNNING, ", ".join([*half_done, who])
    if history.broken:
        return State.CORRUPT, ", ".join(history.broken)
    if half_done:
        return State.UNFINISHED, f"{', '.join(half_done)} is half done"
    left = _left_to_do(history)
    return (State.UNFINISHED, left) if left else (State.FINISHED, "")


def _attempts(directory: Path) -> list[str]:
    """Stages that were begun and are not done. What is older than the summary was left by an earlier, settled start."""
    found, (concluded, _) = [], _summary(directory)
    for attempt in [*directory.glob(".*.attempt"), *directory.glob("*/.*.attempt")]:
        if _modified(attempt) > concluded:
            name = attempt.name.removeprefix(".").removesuffix(".attempt")
            found.append(str((attempt.parent / name).relative_to(directory)))
    return sorted(found)


def _left_to_do(history: History) -> str | None:
    """The next stage, or None if the summary, which is written last, covers all that are there."""
    concluded, iterations = _summary(history.directory)
    last = max(history.stages.values(), key=lambda stage: stage.manifest.ended, default=None)
    ended = datetime.fromisoformat(last.manifest.ended).timestamp() if last else 0.0
    covered = last is not None and ended <= concluded
    if history.algorithm:
        names = expected_stages(history.algorithm, iterations if covered else _planned(history))
    else:
        names = list(BEGINNING)
    positions = [names.index(name) for name in names if name not in history.stages]
    if last is not None and not covered and last.manifest.stage in names:
        # After a rebuild that was stopped, the stages that are yet to be made again are there as they were.
        positions.append(names.index(last.manifest.stage) + 1)
    position = min(positions, default=len(names))
    if position < len(names):
        return f"{names[position]} is next"
    if covered:
        return None
    return "the report is next" if history.algorithm or not last else f"{last.manifest.stage} was the last stage done"


def _planned(history: History) -> int:
    """How many iterations the run has by its settings and the accuracies so far, which may have ended it early."""
    stop, most = StopConfig.model_validate(history.config.get("stop", {})), int(history.config.get("iterations", 1))
    accuracies = _in_order(history.accuracies)
    for number in range(1, min(most, len(accuracies) - 1) + 1):
        if stop_reason(stop.rule, stop.patience, accuracies[: number + 1]):
            return number
    return most


def _summary(directory: Path) -> tuple[float, int]:
    """When the summary was written and how many iterations it covers; zeros where it or the report is not there."""
    file = directory / SUMMARY
    try:
        covered = len(json.loads(file.read_text())["iterations"]) - 1
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0
    return (_modified(file), covered) if (directory / REPORT).exists() else (0.0, 0)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _best(history: History, state: State) -> int | None:
    if state is State.FINISHED and "best" in history.stages:
        return int(history.stages["best"].manifest.config["iteration"])
    accuracies = _in_order(history.accuracies)
    return best_iteration(accuracies) if accuracies else None


def _in_order(accuracies: Mapping[int, Interval]) -> list[float]:
    """Accuracies from the base up to the first iteration that has none."""
    values: list[float] = []
    while len(values) in accuracies:
        values.append(accuracies[len(values)].value)
    return values


def _footprint(directory: Path) -> tuple[int, datetime]:
    """Bytes of all files, hard links counted once, and when the latest of them was written."""
    files = {(found.st_dev, found.st_ino): found for found in _stats(directory) if stat.S_ISREG(found.st_mode)}
    latest = max((found.st_mtime for found in files.values()), default=directory.stat().st_mtime)
    return sum(found.st_size for found in files.values()), datetime.fromtimestamp(latest).astimezone()


def _stats(directory: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a run that is under way removes what it has no more use for
                continue
