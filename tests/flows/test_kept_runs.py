"""Runs of an earlier commit are finished runs of this one: every stage is what it was, to the byte of its digest.

If this fails, a stage's version rose or its settings have another form, and users' unfinished runs will drift. If that
is meant, keep newer runs: `python -m tests.flows.kept_runs RUN…`.
"""

from pathlib import Path

import pytest

from flows.commands.flow_table import own_flows
from tasks.history.state import State, run_state
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import OnDrift, Status
from tests.flows.kept_runs import KEPT, lay_out


@pytest.mark.parametrize(("name", "flow"), [("demo", "rest-em"), ("spin-demo", "spin")])
def test_a_run_of_an_earlier_commit_is_shown_as_finished_and_reused(name: str, flow: str, tmp_path: Path) -> None:
    settings = lay_out(name, tmp_path)
    loaded = own_flows()[flow].load()
    planned = plan_loop(loaded.loop, loaded.settings.model_validate(settings), OnDrift.REFUSE)
    assert {p.stage.name: p.status for p in planned.plan if p.status is not Status.REUSE} == {}
    found = run_state(tmp_path / name)
    assert (found.state, found.iterations, found.planned) == (State.FINISHED, 2, 2)


def test_every_kept_run_is_looked_at() -> None:
    assert {file.stem for file in KEPT.iterdir()} == {"demo", "spin-demo"}
