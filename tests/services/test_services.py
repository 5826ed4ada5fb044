"""Services and flow runs on them, with the stub programs: up, down, cancel, kill, a schedule."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from deployments import services
from deployments.register import MISSED
from tasks.environment import HEARTBEAT_SECONDS
from tests.flows.conftest import make_config, small
from tests.flows.test_kill import drive, wait_gone
from tests.flows.test_rest_em import digests
from tests.services.conftest import BIN, Site, eventually

BELIEVED_DEAD_AFTER = MISSED * HEARTBEAT_SECONDS + 15


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
    assert listener(site.prefect)
    assert listener(site.mlflow)


def test_up_keeps_schedules_that_were_switched_on_or_added(site: Site):
    path = f"deployments/{site.deployment('rest-em/nightly')}/schedules"
    example = site.api("GET", path)[0]
    site.api("PATCH", f"{path}/{example['id']}", {"active": True})
    site.api("POST", path, [{"active": False, "schedule": {"interval": 86400}, "parameters": {"on_drift": "accept"}}])
    site.up()
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
    time.sleep(BELIEVED_DEAD_AFTER)
    assert site.state(flow_run) == "Running", "a flow run that lives was taken for dead"
    worker = psutil.Process(flow).parent()
    assert worker is not None
    worker.kill()
    os.kill(flow, signal.SIGKILL)
    wait_gone(program, 10)
    site.wait(flow_run, "Crashed", seconds=240)
    assert "heartbeat" in site.api("GET", f"flow_runs/{flow_run}")["state"]["message"]
    resumed(site, "killed", undisturbed)


def test_the_loop_goes_on_without_mlflow_and_completes_the_history_afterwards(site: Site, undisturbed):
    flow_run, _, _ = hang(site, "unheard")
    supervisor = services.connect(services.services_folder(site.runs)).supervisor
    supervisor.stopProcess("mlflow")
    try:
        (site.folder / "started-unheard.go").touch()
        site.wait(flow_run, "Failed", seconds=240)
        message = site.api("GET", f"flow_runs/{flow_run}")["state"]["message"]
        assert f"MLflow at {site.mlflow} does not answer" in message
        assert "run the same command again to complete the history" in message
        assert digests(make_config(site.folder, run="unheard")) == undisturbed
    finally:
        site.up()
    resumed(site, "unheard", undisturbed)


def test_a_killed_prefect_server_comes_back_and_the_run_ends_as_it_should(site: Site, undisturbed):
    flow_run, _, _ = hang(site, "unserved")
    os.kill(listener(site.prefect), signal.SIGKILL)
    (site.folder / "started-unserved.go").touch()
    eventually((site.runs / "unserved" / "summary.json").exists, 180, "the loop did not go on")
    assert digests(make_config(site.folder, run="unserved")) == undisturbed
    site.up()
    site.wait(flow_run, "Completed", "Crashed", seconds=240)


def test_a_person_decides_after_an_iteration(site: Site):
    flow_run = site.start(settings(site, "approved", iterations=3, approve=True))
    site.wait(flow_run, "Suspended", seconds=180)
    assert statuses(site, "approved")["approved"] == "SCHEDULED"
    site.api("POST", f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "go on"}})
    eventually((site.runs / "approved" / "iter-2" / "evaluate").exists, 180, "it did not go on")
    site.wait(flow_run, "Suspended", seconds=180)
    site.api("POST", f"flow_runs/{flow_run}/resume", {"run_input": {"decision": "use iteration", "iteration": 1}})
    site.wait(flow_run, "Completed", seconds=180)
    summary = json.loads((site.runs / "approved" / "summary.json").read_text())
    assert (summary["best_iteration"], summary["stop_reason"]) == (1, "a person decided so after iteration 2")
    assert not (site.runs / "approved" / "iter-3").exists()


def test_a_run_that_was_started_by_hand_cannot_wait_for_a_person(site: Site):
    output = site.autodidact("rest-em", "--approve", "true", "--run", "by-hand", "--generate.max_tokens", "48", code=2)
    assert "only a run that was started from a deployment can wait for a person" in output


def test_reconcile_closes_what_a_killed_process_left_open(site: Site):
    flow_run, flow, program = hang(site, "left-open")
    worker = psutil.Process(flow).parent()
    assert worker is not None
    worker.kill()
    os.kill(flow, signal.SIGKILL)
    wait_gone(program, 10)
    assert statuses(site, "left-open")["left-open"] == "RUNNING"
    output = site.autodidact("reconcile")
    assert "MLflow: left-open was RUNNING, and no process works on" in output
    assert statuses(site, "left-open")["left-open"] == "KILLED"
    eventually(lambda: "Prefect: left-open was Running" in site.autodidact("reconcile"), 120, "it stays Running")
    assert site.state(flow_run) == "Crashed"
    assert "left-open" not in site.autodidact("reconcile")


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
    assert int(registry.aliases["champion"]) >= 2


def test_down_leaves_no_process_and_up_shows_the_old_history(site: Site):
    site.wait(site.start(settings(site, "before")), "Completed")
    ours = [p for p in psutil.process_iter() if str(site.folder) in environment_of(p)]
    assert len(ours) >= 4
    assert "stopped; their history is kept" in site.autodidact("down")
    assert not [p for p in psutil.process_iter() if str(site.folder) in environment_of(p)]
    assert "No services" in site.autodidact("status", code=1)
    assert "No services" in site.autodidact("down")
    site.up()
    assert statuses(site, "before")["before"] == "FINISHED"
    names = {run["name"] for run in site.api("POST", "flow_runs/filter", {})}
    assert "before" in names


def listener(address: str) -> int:
    """The process that listens at an address, on the loopback interface alone."""
    port = int(address.rsplit(":", 1)[1])
    found = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
    assert {c.laddr.ip for c in found} == {"127.0.0.1"}
    assert found[0].pid is not None
    return found[0].pid


def environment_of(process: psutil.Process) -> str:
    """The folder that a process of a site was started in."""
    try:
        return process.environ().get("PWD", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
