"""Services and flow runs on them, with the stub programs: up, down, cancel, kill, a schedule."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from tests.flows.conftest import make_config, small
from tests.flows.test_kill import drive, wait_gone
from tests.flows.test_rest_em import digests
from tests.services.conftest import BIN, Site, eventually


def settings(site: Site, run: str, **changes: Any) -> dict[str, Any]:
    """A ReST-EM run of one iteration on a hundred problems, as a form would hand it over."""
    return small(site.folder) | {"run": run, "runs_dir": str(site.runs), "iterations": 1} | changes


@pytest.fixture(scope="module")
def undisturbed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = make_config(folder, iterations=1)
    assert drive(config, AUTODIDACT_CACHE=str(folder / "cache")).wait(240) == 0
    return digests(config)


def hang(site: Site, run: str, stage: str = "iter-1/train") -> tuple[str, int, int]:
    """Start a flow run that hangs in a stage: its id, its process, and the hanging program."""
    started = site.folder / f"started-{run}"
    flow_run = site.start(settings(site, run), STUB_HANG=stage, STUB_STARTED=str(started))
    eventually(lambda: started.exists() and started.read_text(), 180, lambda: f"{run} is {site.state(flow_run)}")
    program = int(started.read_text())
    flow = next(p for p in psutil.Process(program).parents() if "prefect.engine" in p.cmdline())
    return flow_run, flow.pid, program


def statuses(site: Site, run: str) -> dict[str, str]:
    """MLflow's status of a run and of its iterations, by name."""
    client = MlflowClient(site.mlflow)
    experiment = client.get_experiment_by_name("ReST-EM")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {r.info.run_name: r.info.status for r in found if r.info.run_name.split("/")[0] == run}


def resumed(site: Site, run: str, undisturbed: dict[str, str]) -> None:
    """The same run, started again, ends with the digests of one that was left alone, and a whole history."""
    site.wait(site.start(settings(site, run)), "Completed")
    assert digests(make_config(site.folder, run=run)) == undisturbed
    assert statuses(site, run) == dict.fromkeys((run, f"{run}/iteration-0", f"{run}/iteration-1"), "FINISHED")


def test_up_may_be_called_twice_and_status_shows_the_addresses(site: Site):
    first = site.autodidact("status")
    assert site.prefect in site.up()
    assert first.count("RUNNING") == 3
    assert site.mlflow in first
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.laddr and str(c.laddr.port) in site.prefect}
    assert listening == {"127.0.0.1"}


def test_a_taken_port_is_named(site: Site, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        elsewhere = Site(tmp_path, site.prefect, site.mlflow)
        output = elsewhere.autodidact("up", "--prefect-port", port, code=1)
    assert f"Port {port} on 127.0.0.1, which Prefect is to listen on, cannot be taken" in output
    assert "--prefect-port" in output


def test_cancelled_from_the_command_line_it_is_gone_in_ten_seconds_and_can_be_resumed(site: Site, undisturbed):
    flow_run, flow, program = hang(site, "cancelled")
    done = site.run(BIN / "prefect", "flow-run", "cancel", flow_run, PREFECT_API_URL=f"{site.prefect}/api")
    assert done.returncode == 0, done.stderr
    wait_gone(program, 10)
    wait_gone(flow, 10)
    site.wait(flow_run, "Cancelled")
    assert statuses(site, "cancelled") == {
        "cancelled": "KILLED",
        "cancelled/iteration-0": "FINISHED",
    }
    resumed(site, "cancelled", undisturbed)


def test_worker_and_flow_killed_together_leave_nothing_and_the_run_is_marked_crashed(site: Site, undisturbed):
    flow_run, flow, program = hang(site, "killed")
    worker = psutil.Process(flow).parent()
    assert worker is not None
    worker.kill()
    os.kill(flow, signal.SIGKILL)
    wait_gone(program, 10)
    site.wait(flow_run, "Crashed", seconds=240)
    assert "heartbeat" in site.api("GET", f"flow_runs/{flow_run}")["state"]["message"]
    resumed(site, "killed", undisturbed)


def test_a_schedule_of_one_minute_runs_two_nights_the_second_from_the_champion_of_the_first(site: Site):
    deployment, config = site.deployment("rest-em/stub"), settings(site, "night-%Y%m%d%H%M%S", init="champion")
    schedule = {"active": True, "schedule": {"interval": 60}, "parameters": {"config": config}}
    made = site.api("POST", f"deployments/{deployment}/schedules", [schedule])
    nights: list[Path] = []

    def two_are_finished() -> bool:
        nights[:] = sorted(path.parent for path in site.runs.glob("night-*/summary.json"))
        return len(nights) >= 2

    try:
        eventually(two_are_finished, 300, "two nights did not finish")
    finally:
        site.api("DELETE", f"deployments/{deployment}/schedules/{made[0]['id']}")
    first, second = (make_config(site.folder, run=night.name) for night in nights[:2])
    assert (second.directory / "champion.json").read_text().count(str(first.directory)) == 1
    assert digests(second)["base"] != digests(first)["base"]
    registry = MlflowClient(site.mlflow).get_registered_model("autodidact-night")
    assert registry.aliases["champion"] >= 2
