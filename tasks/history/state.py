"""A run's progress, from its plan, manifests, lock and summary, without its flow's code. Writes nothing."""

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from data.measures import ACCURACY, DISCRIMINATOR, Measure
from data.metrics import Interval
from data.stopping import best_iteration, from_the_base, game_is_over, stop_reason
from tasks.history.runs import History, iteration_of, load_history
from tasks.rollouts.measured import load_measured
from tasks.settings.loop import StopConfig
from tasks.stage.run import LOCK, SUMMARY, Result, describe_holder
from tasks.tracking.recorder import REPORT


class State(StrEnum):
    FINISHED = "finished"
    RUNNING = "running"
    UNFINISHED = "unfinished"
    CORRUPT = "corrupt"


@dataclass(frozen=True)
class RunState:
    """A line in the list of runs. `best` is the best iteration so far, `value` its value of the measure."""

    name: str
    algorithm: str | None
    state: State
    detail: str
    iterations: int
    planned: int | None
    best: int | None
    measure: Measure | None
    value: Interval | None
    size: int
    changed: datetime
    broken: dict[str, str]


def run_state(directory: Path) -> RunState:
    """Return a run's state from its directory, without its flow's code."""
    history = load_history(directory)
    state, detail = _state(history)
    best = _best(history, state)
    size, changed = _footprint(directory)
    return RunState(
        name=history.name,
        algorithm=history.algorithm,
        state=state,
        detail=detail,
        iterations=decided(history),
        planned=history.config.get("iterations", 1) if history.config else None,
        best=best,
        measure=history.measure,
        value=None if best is None else history.values.get(best),
        size=size,
        changed=changed,
        broken=history.broken,
    )


def holder(directory: Path) -> str | None:
    """Return which process has the run open, or None.

    Tries a shared lock, so that two simultaneous readers do not mistake each other for a run.
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


def expected_stages(history: History, iterations: int | None = None) -> list[str]:
    """Return the planned stages of a run with that many iterations, or with its maximum, in order."""
    most = _most(history) if iterations is None else iterations
    return [name for name in history.plan if iteration_of(name) <= most]


def settled_state(history: History) -> tuple[State, int | None]:
    """Return the state of a run that no other process works on, and its best iteration so far."""
    state, _ = _at_rest(history)
    return state, _best(history, state)


def _state(history: History) -> tuple[State, str]:
    if who := holder(history.directory):
        return State.RUNNING, ", ".join([*_attempts(history.directory), who])
    return _at_rest(history)


def _at_rest(history: History) -> tuple[State, str]:
    half_done = _attempts(history.directory)
    if history.broken:
        return State.CORRUPT, ", ".join(history.broken)
    if half_done:
        return State.UNFINISHED, f"{', '.join(half_done)} is half done"
    left = _left_to_do(history)
    return (State.UNFINISHED, left) if left else (State.FINISHED, "")


def _attempts(directory: Path) -> list[str]:
    """Stages that were started but are not done. Attempts older than the summary are leftovers of a finished run."""
    found, (concluded, _) = [], _summary(directory)
    for attempt in [*directory.glob(".*.attempt"), *directory.glob("*/.*.attempt")]:
        if _modified(attempt) > concluded:
            name = attempt.name.removeprefix(".").removesuffix(".attempt")
            found.append(str((attempt.parent / name).relative_to(directory)))
    return sorted(found)


def _left_to_do(history: History) -> str | None:
    """The next stage, or None if the summary, which is written last, covers all existing stages."""
    concluded, iterations = _summary(history.directory)
    last = max(history.stages.values(), key=lambda stage: stage.manifest.ended, default=None)
    ended = datetime.fromisoformat(last.manifest.ended).timestamp() if last else 0.0
    covered = last is not None and ended <= concluded
    names = expected_stages(history, iterations if covered else _planned(history))
    positions = [names.index(name) for name in names if name not in history.stages]
    if last is not None and not covered and last.manifest.stage in names:
        # After an interrupted rebuild, the stages that have not been made again still exist in their old form.
        positions.append(names.index(last.manifest.stage) + 1)
    position = min(positions, default=len(names))
    if position < len(names):
        return f"{names[position]} is next"
    if covered:
        return None
    if last is None:
        return "nothing is done yet"
    return "the report is next" if history.plan else f"{last.manifest.stage} was the last stage done"


def _planned(history: History) -> int:
    """Return the number of iterations by the settings and the values so far, which may have ended the run early."""
    stop, most = StopConfig.model_validate(history.config.get("stop", {})), _most(history)
    if stop.rule == "discriminator":
        ended = (number for number in range(1, most + 1) if _is_over(history, number))
        return next(ended, most)
    values = _in_order(history)
    for number in range(1, min(most, len(values) - 1) + 1):
        if stop_reason(stop.rule, stop.patience, values[: number + 1], history.measure or ACCURACY):
            return number
    return most


def _is_over(history: History, number: int) -> bool:
    stage = history.stages.get(f"iter-{number}/likelihood")
    found = load_measured([Result(stage.path, stage)]).get("validation", DISCRIMINATOR.name) if stage else None
    return found is not None and game_is_over(number, found.value) is not None


def _most(history: History) -> int:
    return int(history.config.get("iterations", 1))


def decided(history: History) -> int:
    """Return the latest iteration whose stages all exist; for an older run without a plan, the last measured one."""
    if not history.plan:
        return max(history.values, default=0)
    planned = expected_stages(history)
    lacking = {iteration_of(name) for name in planned if name not in history.stages}
    return max((number for number in map(iteration_of, planned) if number and number not in lacking), default=0)


def _summary(directory: Path) -> tuple[float, int]:
    """Return when the summary was written and how many iterations it covers; zeros if it or the report is missing."""
    file = directory / SUMMARY
    try:
        listed = len(json.loads(file.read_text())["iterations"])
        covered = listed - 1 if listed else 1  # a run that is not a loop lists none
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
    values = _in_order(history)
    return best_iteration(values, history.measure or ACCURACY) if values else None


def _in_order(history: History) -> list[float]:
    """Values from the base up to the first iteration without one."""
    numbers = range(max(history.values, default=-1) + 1)
    found = [history.values[number].value if number in history.values else None for number in numbers]
    return from_the_base(found, history.measure or ACCURACY)


def _footprint(directory: Path) -> tuple[int, datetime]:
    """Return the bytes of all files, hard links counted once, and the latest modification time."""
    files = {(found.st_dev, found.st_ino): found for found in _stats(directory) if stat.S_ISREG(found.st_mode)}
    latest = max((found.st_mtime for found in files.values()), default=directory.stat().st_mtime)
    return sum(found.st_size for found in files.values()), datetime.fromtimestamp(latest).astimezone()


def _stats(directory: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                yield os.lstat(os.path.join(parent, name))
            except FileNotFoundError:  # a running run removes files that it no longer needs
                continue
