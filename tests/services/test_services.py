"""Services, and what they are for: up, down, schedules, decisions, nights. The loops run on the stub programs."""

import json
import socket
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.flows.conftest import make_config
from tests.flows.test_rest_em import digests
from tests.services.conftest import Site, listener, settings, statuses
from tests.waiting import eventually


def test_status_shows_the_addresses_and_all_listen_on_the_loopback_interface(site: Site):
    output = site.autodidact("status")
    assert output.count("RUNNING") == 3
    assert site.prefect in output
    assert site.mlflow in output
    assert listener(site.prefect)
    assert listener(site.mlflow)


def test_up_may_be_called_again_and_keeps_schedules_that_were_switched_on_or_added(site: Site):
    path = f"deployments/{site.deployment('rest-em/nightly')}/schedules"
    example = site.api("GET", path)[0]
    site.api("PATCH", f"{path}/{example['id']}", {"active": True})
    site.api("POST", path, [{"active": False, "schedule": {"interval": 86400}, "parameters": {"on_drift": "accept"}}])
    assert site.prefect in site.up()
    kept = {(s["active"], s["schedule"].get("cron"), s["parameters"].get("on_drift")) for s in site.api("GET", path)}
    assert kept == {(True, "0 2 * * *", None), (False, None, "accept")}
    for schedule in site.api("GET", path):
        site.api("DELETE", f"{path}/{schedule['id']}")


def test_a_taken_port_is_named(site: Site, tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        elsewhere = Site(tmp_path, site.prefect, site.mlflow)
        output = elsewhere.autodidact("up", "--prefect-port", port, code=1)
    assert f"Port {port} on 127.0.0.1, which Prefect needs, cannot be used" in output
    assert "--prefect-port" in output


@pytest.fixture(scope="module")
def approved(site: Site) -> Path:
    """The folder of a run that ended as a person decided."""
    flow_run = site.start(settings(site, "approved", iterations=3, approve=True))
    site.wait(flow_run, "Suspended")
    eventually(lambda: statuses(site, "approved")["approved"] == "SCHEDULED", pause=0.5)
    site.api("POST", f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "go on"}})
    eventually((site.runs / "approved" / "iter-2" / "evaluate").exists, "it did not go on")
    site.wait(flow_run, "Suspended")
    site.api("POST", f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "use iteration", "iteration": 1}})
    site.wait(flow_run, "Completed")
    return site.runs / "approved"


def test_a_person_decides_after_an_iteration(approved: Path):
    summary = json.loads((approved / "summary.json").read_text())
    assert (summary["best_iteration"], summary["stop_reason"]) == (1, "a reviewer decided to stop after iteration 2")
    assert not (approved / "iter-3").exists()


def test_a_run_that_was_started_by_hand_cannot_wait_for_a_person(site: Site):
    output = site.autodidact("rest-em", "--approve", "true", "--run", "by-hand", "--generate.max-tokens", "48", code=2)
    assert "only a run started from a deployment can wait for approval" in output


def test_a_schedule_of_one_minute_runs_two_nights_the_second_from_the_champion_of_the_first(site: Site):
    deployment, config = site.deployment("rest-em/stub"), settings(site, "night-%Y%m%d%H%M%S", init="champion")
    schedule = {"active": True, "schedule": {"interval": 60}, "parameters": {"config": config}}
    made = site.api("POST", f"deployments/{deployment}/schedules", [schedule])
    nights: list[Path] = []

    def two_are_finished() -> bool:
        nights[:] = sorted(path.parent for path in site.runs.glob("night-*/summary.json"))
        return len(nights) >= 2

    try:
        eventually(two_are_finished, "two nights did not finish")
    finally:
        site.api("DELETE", f"deployments/{deployment}/schedules/{made[0]['id']}")
    first, second = (make_config(site.folder, run=night.name) for night in nights[:2])
    assert (second.directory / "champion.json").read_text().count(str(first.directory)) == 1
    assert digests(second)["base"] != digests(first)["base"]
    registry = MlflowClient(site.mlflow).get_registered_model("autodidact-night")
    assert int(registry.aliases["champion"]) >= 2


def test_down_leaves_no_process_and_up_shows_the_old_history(site: Site, approved: Path):
    ours = [p for p in psutil.process_iter() if str(site.folder) in environment_of(p)]
    assert len(ours) >= 4
    assert "stopped; their history is kept" in site.autodidact("down")
    assert not [p for p in psutil.process_iter() if str(site.folder) in environment_of(p)]
    assert "No services" in site.autodidact("status", code=1)
    assert "No services" in site.autodidact("down")
    site.up()
    assert statuses(site, approved.name)[approved.name] == "FINISHED"
    names = {run["name"] for run in site.api("POST", "flow_runs/filter", {})}
    assert approved.name in names


def environment_of(process: psutil.Process) -> str:
    """The folder that a process of a site was started in."""
    try:
        return process.environ().get("PWD", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
