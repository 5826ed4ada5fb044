"""Decides which checkpoints of a run stay and frees the others: in the loop by `keep`, and for `autodidact clean`.

A checkpoint is freed once its iteration is decided and nothing needs it. tasks/stage/freed.py does the removal.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.keeping import kept_iterations
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import MANIFEST
from tasks.stage.freed import STATE, Freed, free, room_made, weights_of
from tasks.stage.iteration import Iteration
from tasks.stage.logs import run_logger
from tasks.stage.run import Run
from tasks.tracking.mlflow import HistoryError
from tasks.tracking.registry import Registry


@dataclass(frozen=True)
class Clearing:
    """What would be freed of a run.

    Attributes:
        freed: stages whose checkpoints are removed, by iteration.
        kept: reason each other checkpoint stays, by iteration.
    """

    freed: Mapping[int, Path]
    kept: Mapping[int, str]

    @property
    def room(self) -> int:
        """Bytes gained."""
        return sum(room_made(weights_of(stage)) for stage in self.freed.values())

    def free(self, by: str) -> Iterator[tuple[Path, Freed]]:
        """Free the checkpoints stage by stage; `by` goes into the record."""
        for stage in self.freed.values():
            if (freed := free(stage, by)) is not None:
                yield stage, freed


def checkpoints(run: Path) -> dict[int, Path]:
    """Return the training stages of a run whose weights exist, by iteration."""
    stages = [file.parent for file in run.glob(f"iter-*/train/{MANIFEST}")]
    found = {_iteration(run, stage): stage for stage in stages if weights_of(stage)}
    return dict(sorted((number, stage) for number, stage in found.items() if number is not None))


def clearing(there: Mapping[int, Path], keep: str, best: int, held: Mapping[int, str]) -> Clearing:
    """Apply `keep` to the existing checkpoints; see `data.keeping`."""
    kept = kept_iterations(keep, list(there), best, held)
    return Clearing({number: stage for number, stage in there.items() if number not in kept}, kept)


def held_elsewhere(run: Path, registry: Registry, model: str) -> dict[int, str]:
    """Return the iterations whose checkpoints the registry needs or another run starts from.

    Args:
        model: the registered model that gets the run's versions.

    Raises:
        mlflow.exceptions.MlflowException: the registry does not answer; see `reaching`.
    """
    return _by_iteration(run, [*_begun_with(run), *registry.holding(run.name, model).items()])


def free_decided(run: Run, config: LoopConfig, iterations: list[Iteration], best: int, over: bool = False) -> None:
    """Free what `keep` does not keep, once the latest iteration is decided. Failures are logged and retried.

    Optimizer states that a later iteration went on from, and that of the last planned one, have no use and always go.

    With human approval, any iteration may still be chosen until the loop is over.

    Args:
        best: the best iteration so far.
        over: whether all stages of the loop are done.
    """
    if run.recorder is None:
        return
    all_made = over and iterations[-1].number == getattr(config, "iterations", 1)  # or other stop rules may go on
    _free_states(run, iterations if all_made else iterations[:-1])
    if config.keep == "all" or (config.approve and not over):
        return
    there = {number: stage for number, stage in checkpoints(run.directory).items() if number < len(iterations)}
    try:
        with run.recorder.tracking.reaching():
            held = held_elsewhere(run.directory, run.recorder.tracking.registry, config.registered)
        held |= {} if over else _still_read(run)
        plan = clearing(there, config.keep, best, held)
        for stage, freed in plan.free(f"keep: {config.keep}"):
            run_logger().info("%s: %s, %.1f MB", stage.relative_to(run.directory), freed, freed.bytes / 1e6)
    except HistoryError as error:
        run_logger().warning("No checkpoint is freed, because the registry may refer to it. %s", error)
    except OSError as error:
        run_logger().warning("A checkpoint cannot be freed: %s. The loop continues.", error)


def _free_states(run: Run, iterations: Sequence[Iteration]) -> None:
    try:
        for iteration in iterations:
            free(run.directory / f"iter-{iteration.number}" / "train", "the loop", STATE)
    except OSError as error:
        run_logger().warning("An optimizer's state cannot be freed: %s. The loop continues.", error)


def _still_read(run: Run) -> dict[int, str]:
    """Return the iterations whose checkpoints a later stage reads."""
    read = [
        (artifact.path, f"{stage.name} needs it")
        for stage in reversed(run.to_come.values())
        for artifact in (*stage.inputs.values(), *stage.observed.values())
    ]
    return _by_iteration(run.directory, read)


def _begun_with(run: Path) -> list[tuple[Path, str]]:
    """Return the checkpoints that other runs of the same folder start from: their bases link to them."""
    links = [file for file in run.parent.glob("*/base/policy/*.safetensors") if file.is_symlink()]
    return [(link.readlink(), f"the run {link.parents[2].name} starts from it") for link in links]


def _by_iteration(run: Path, found: Iterable[tuple[Path, str]]) -> dict[int, str]:
    """Map the iterations of a run to what needs their checkpoints; other paths are ignored."""
    named = ((_iteration(run, path), why) for path, why in found)
    return {number: why for number, why in named if number is not None}


def _iteration(run: Path, path: Path) -> int | None:
    """Return the iteration of a run that contains a path."""
    path, run = path.resolve(), run.resolve()
    if not path.is_relative_to(run) or path == run:
        return None
    name, _, number = path.relative_to(run).parts[0].partition("-")
    return int(number) if name == "iter" and number.isdecimal() else None
