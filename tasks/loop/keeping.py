"""Which checkpoints of a run stay, and freeing the others: in the loop as `keep` says, and by `autodidact clean`.

A checkpoint is freed once its iteration is decided and nothing needs it any more. See tasks/stage/freed.py for how.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.keeping import kept_iterations
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import MANIFEST
from tasks.stage.freed import Freed, free, room_made, weights_of
from tasks.stage.iteration import Iteration
from tasks.stage.logs import run_logger
from tasks.stage.run import Run
from tasks.tracking.mlflow import HistoryError
from tasks.tracking.registry import Registry


@dataclass(frozen=True)
class Clearing:
    """What of a run would be freed.

    Attributes:
        freed: the stages whose checkpoints go, by iteration.
        kept: why each of the others stays, by iteration.
    """

    freed: Mapping[int, Path]
    kept: Mapping[int, str]

    @property
    def room(self) -> int:
        """Bytes that this gives back."""
        return sum(room_made(weights_of(stage)) for stage in self.freed.values())

    def free(self, by: str) -> Iterator[tuple[Path, Freed]]:
        """Free it stage by stage, on whose word `by` says."""
        for stage in self.freed.values():
            if (freed := free(stage, by)) is not None:
                yield stage, freed


def checkpoints(run: Path) -> dict[int, Path]:
    """The stages of a run that trained a policy whose weights are there, by iteration."""
    stages = [file.parent for file in run.glob(f"iter-*/train/{MANIFEST}")]
    found = {_iteration(run, stage): stage for stage in stages if weights_of(stage)}
    return dict(sorted((number, stage) for number, stage in found.items() if number is not None))


def clearing(there: Mapping[int, Path], keep: str, best: int, held: Mapping[int, str]) -> Clearing:
    """What `keep` says of the checkpoints that are there; see `data.keeping`."""
    kept = kept_iterations(keep, list(there), best, held)
    return Clearing({number: stage for number, stage in there.items() if number not in kept}, kept)


def held_elsewhere(run: Path, registry: Registry, model: str) -> dict[int, str]:
    """The iterations of a run whose checkpoints the registry needs, or another run begins with.

    Args:
        model: the registered model whose versions the run makes by itself.

    Raises:
        mlflow.exceptions.MlflowException: the registry does not answer; see `reaching`.
    """
    return _by_iteration(run, [*_begun_with(run), *registry.holding(run.name, model).items()])


def free_decided(run: Run, config: LoopConfig, iterations: list[Iteration], best: int, over: bool = False) -> None:
    """Free what `keep` does not keep, once the latest iteration is decided. What fails is logged, and tried again.

    Where a person decides, any iteration may still be chosen until the loop is over.

    Args:
        best: the best iteration so far.
        over: whether no stage of the loop is left to do.
    """
    if run.recorder is None or config.keep == "all" or (config.approve and not over):
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
        run_logger().warning("No checkpoint is freed, since the registry may name it. %s", error)
    except OSError as error:
        run_logger().warning("A checkpoint cannot be freed: %s. The loop goes on.", error)


def _still_read(run: Run) -> dict[int, str]:
    """The iterations whose checkpoints a stage reads that is still to come."""
    read = [
        (artifact.path, f"{stage.name} needs it")
        for stage in reversed(run.to_come.values())
        for artifact in (*stage.inputs.values(), *stage.observed.values())
    ]
    return _by_iteration(run.directory, read)


def _begun_with(run: Path) -> list[tuple[Path, str]]:
    """The checkpoints that other runs of the same folder begin with, whose bases are links to them."""
    links = [file for file in run.parent.glob("*/base/policy/*.safetensors") if file.is_symlink()]
    return [(link.readlink(), f"the run {link.parents[2].name} begins with it") for link in links]


def _by_iteration(run: Path, found: Iterable[tuple[Path, str]]) -> dict[int, str]:
    """What needs checkpoints of a run, by their iterations; paths that are none of its iterations' are left out."""
    named = ((_iteration(run, path), why) for path, why in found)
    return {number: why for number, why in named if number is not None}


def _iteration(run: Path, path: Path) -> int | None:
    """The iteration of a run that a path lies in."""
    path, run = path.resolve(), run.resolve()
    if not path.is_relative_to(run) or path == run:
        return None
    name, _, number = path.relative_to(run).parts[0].partition("-")
    return int(number) if name == "iter" and number.isdecimal() else None
