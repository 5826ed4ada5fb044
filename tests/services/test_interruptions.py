"""Flow runs on the services, with the stub programs: cancelled, killed, and left without a server."""

import os
import signal
import time

import psutil
import pytest
from mlflow import MlflowClient

from deployments.register import MISSED
from deployments.supervision import connect
from tasks.stage.environment import HEARTBEAT_SECONDS, services_folder
from tests.flows.conftest import make_config
from tests.flows.test_rest_em import digests
from tests.services.conftest import BIN, Site, hang, history, listener, resumed, statuses
from tests.waiting import eventually, wait_gone

BELIEVED_DEAD_AFTER = MISSED * HEARTBEAT_SECONDS + 15


def test_cancelled_from_the_command_line_it_is_gone_in_ten_seconds_and_can_be_resumed(site: Site, undisturbed):
    flow_run, flow, program = hang(site, "cancelled")
    done = site.run(BIN / "prefect", "flow-run", "cancel", flow_run, **site.client)
    assert done.returncode == 0, done.stderr
    wait_gone(program, 10)
    wait_gone(flow, 10)
    site.wait(flow_run, "Cancelled")
    assert statuses(site, "cancelled") == {
        "cancelled": "KILLED",
        "cancelled/iteration-0": "FINISHED",
        "cancelled/iteration-1": "KILLED",
    }
    resumed(site, "cancelled", undisturbed)


@pytest.mark.nightly  # it waits for more than four minutes
def test_worker_and_flow_killed_together_leave_nothing_and_the_run_is_marked_crashed(site: Site, undisturbed):
    flow_run, flow, program = hang(site, "killed")
    time.sleep(BELIEVED_DEAD_AFTER)
    assert site.state(flow_run) == "Running", "a flow run that lives was taken for dead"
    worker = psutil.Process(flow).parent()
    assert worker is not None
    worker.kill()
    os.kill(flow, signal.SIGKILL)
    wait_gone(program, 10)
    site.wait(flow_run, "Crashed")
    assert "heartbeat" in site.api("GET", f"flow_runs/{flow_run}")["state"]["message"]
    resumed(site, "killed", undisturbed)


def test_the_loop_goes_on_without_mlflow_and_completes_the_history_afterwards(site: Site, undisturbed):
    flow_run, _, _ = hang(site, "unheard", MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    supervisor = connect(services_folder(site.runs)).supervisor
    supervisor.stopProcess("mlflow")
    try:
        (site.folder / "started-unheard.go").touch()
        site.wait(flow_run, "Failed")
        message = site.api("GET", f"flow_runs/{flow_run}")["state"]["message"]
        assert f"MLflow at {site.mlflow} failed" in message
        assert "run the same command again to complete the history" in message
        assert digests(make_config(site.folder, run="unheard")) == undisturbed
    finally:
        supervisor.startProcess("mlflow")
    resumed(site, "unheard", undisturbed)
    client = MlflowClient(site.mlflow)
    (training,) = [r for r in history(site, "unheard") if r.info.run_name.endswith("/iteration-1")]
    assert [point.step for point in client.get_metric_history(training.info.run_id, "train/loss")] == [10]


def test_a_killed_prefect_server_comes_back_and_the_run_ends_as_it_should(site: Site, undisturbed):
    flow_run, _, _ = hang(site, "unserved")
    os.kill(listener(site.prefect), signal.SIGKILL)
    (site.folder / "started-unserved.go").touch()
    eventually((site.runs / "unserved" / "summary.json").exists, "the loop did not go on")
    assert digests(make_config(site.folder, run="unserved")) == undisturbed
    eventually(site.answers, "supervisord did not start the server again", pause=0.5)
    site.wait(flow_run, "Completed", "Crashed")


def test_reconcile_closes_what_a_killed_process_left_open(site: Site):
    flow_run, flow, program = hang(site, "left-open")
    worker = psutil.Process(flow).parent()
    assert worker is not None
    worker.kill()
    os.kill(flow, signal.SIGKILL)
    wait_gone(program, 10)
    assert statuses(site, "left-open")["left-open"] == "RUNNING"
    output = site.autodidact("reconcile")
    assert "MLflow: left-open was RUNNING, but no process works on" in output
    assert statuses(site, "left-open")["left-open"] == "KILLED"
    seconds = 15.0  # to look takes a whole command
    eventually(
        lambda: "Prefect: left-open was Running" in site.autodidact("reconcile"), "it stays Running", pause=seconds
    )
    assert site.state(flow_run) == "Crashed"
    assert "left-open" not in site.autodidact("reconcile")
