"""Closing runs that a killed process left open in MLflow and Prefect. The disk is the source of truth: a run whose lock
nobody holds is not running, whatever the two say.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.history.runs import run_directories
from tasks.history.state import holder
from tasks.stage.run import SUMMARY
from tasks.tracking.mlflow import IDS, close_stale, reaching, tracking_uri
from tasks.tracking.servers import reach_prefect, reaching_prefect

# A flow run takes its run's lock some seconds after it is Running, and sets its final state some after releasing it.
GRACE = timedelta(seconds=60)


def reconcile(runs: Path, grace: timedelta = GRACE) -> list[str]:
    """Close stale runs of a folder in MLflow, and stale flow runs in Prefect if a server is set.

    Args:
        grace: how long a flow run may be in its state while nobody holds its run's lock.

    Returns:
        A sentence for each change.

    Raises:
        HistoryError: MLflow cannot be reached.
        PrefectError: Prefect cannot be reached.
    """
    done = [*_close_in_mlflow(runs)]
    if os.environ.get("PREFECT_API_URL"):
        reach_prefect()
        with reaching_prefect():
            done += _close_in_prefect(runs, grace)
    return done


def _close_in_mlflow(runs: Path) -> Iterator[str]:
    for directory in run_directories(runs):
        if not (directory / IDS).exists() or holder(directory):
            continue
        with reaching(tracking_uri(runs)):
            closed = close_stale(directory)
        for name in closed:
            yield f"MLflow: {name} was RUNNING, but no process works on {directory}; it is KILLED now."


def _close_in_prefect(runs: Path, grace: timedelta) -> Iterator[str]:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Cancelled, Completed, Crashed

    open_states = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.CANCELLING])
    ours = run_directories(runs)
    wanted = FlowRunFilter(state=FlowRunFilterState(type=open_states))
    with get_client(sync_client=True) as client:
        for flow_run in client.read_flow_runs(flow_run_filter=wanted):
            directory = runs / flow_run.name  # a flow run is named after its run
            since = flow_run.state.timestamp if flow_run.state else flow_run.created
            if directory not in ours or holder(directory) or since is None or datetime.now(UTC) - since < grace:
                continue
            said = f"no process works on {directory}"
            state: Any
            if flow_run.state_type is StateType.CANCELLING:
                state = Cancelled(message=f"Closed by autodidact reconcile: {said}.")
            elif _finished_since(directory, since):
                state = Completed(message=f"Closed by autodidact reconcile: {directory} is finished.")
            else:
                state = Crashed(message=f"Closed by autodidact reconcile: {said}. Run it again to continue.")
            before = flow_run.state_name
            client.set_flow_run_state(flow_run.id, state, force=True)
            yield f"Prefect: {flow_run.name} was {before}, but {said}; it is {state.name} now."


def _finished_since(directory: Path, since: datetime) -> bool:
    summary = directory / SUMMARY
    return summary.exists() and datetime.fromtimestamp(summary.stat().st_mtime, UTC) >= since
