"""Frees checkpoints of a run that no process works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.history.runs import History, QueryError, load_history
from tasks.history.state import State, decided, settled_state
from tasks.loop.keeping import Clearing, checkpoints, clearing, held_elsewhere
from tasks.stage.run import hold_run
from tasks.tracking.mlflow import open_registry, reaching, tracking_uri


@contextmanager
def cleared(directory: Path, keep: str) -> Iterator[Clearing]:
    """Lock an idle run and yield what would be freed; an interrupted removal is finished first.

    Args:
        keep: best, or last N.

    Raises:
        RunInUseError: the run is in progress.
        QueryError: the run is corrupt.
        HistoryError: the registry does not answer, and it may refer to a checkpoint.
    """
    with hold_run(directory):
        history = load_history(directory)
        if history.broken:
            raise QueryError(f"{history.name} is corrupt.", what_next=next(iter(history.broken.values())))
        there, uri = checkpoints(directory), tracking_uri(directory.parent)
        with reaching(uri):
            model = str(history.config.get("registry") or f"autodidact-{history.name}")
            held = held_elsewhere(directory, open_registry(directory.parent), model)
        best, unfinished = _best_and_held(history, list(there))
        yield clearing(there, keep, best, held | unfinished)


def _best_and_held(history: History, iterations: list[int]) -> tuple[int, dict[int, str]]:
    """Return the best iteration, and those that an unfinished run needs to continue."""
    state, best = settled_state(history)
    best = max(iterations, default=0) if best is None else best
    if state is State.FINISHED:
        return best, {}
    if history.config.get("approve"):
        return best, dict.fromkeys(iterations, "a reviewer may still choose it")
    return best, {number: "the run continues from it" for number in iterations if number >= decided(history)}
