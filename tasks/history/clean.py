"""Freeing the checkpoints of a run by hand, once no process works on it."""

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
    """Hold a run that nothing works on, and say what of it would be freed; a removal that was interrupted is finished.

    Args:
        keep: best, or last N.

    Raises:
        RunInUseError: it is under way.
        QueryError: it is corrupt.
        HistoryError: the registry, which may name a checkpoint, does not answer.
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
    """The best iteration, and those that the run still needs to go on from where it stopped."""
    state, best = settled_state(history)
    best = max(iterations, default=0) if best is None else best
    if state is State.FINISHED:
        return best, {}
    if history.config.get("approve"):
        return best, dict.fromkeys(iterations, "a person may still choose it")
    return best, {number: "the run goes on from it" for number in iterations if number >= decided(history)}
