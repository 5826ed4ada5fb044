"""Flows as Prefect runs them, against a real Prefect server: what a person sees on the run's page."""

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from flows.commands.flow_table import own_flows
from flows.rest_em import rest_em
from tasks.stage.process import ChildError
from tests.flows.conftest import make_config, small
from tests.flows.test_sft_dpo import write
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture(scope="module", autouse=True)
def server():
    with prefect_test_harness(int(PATIENCE)), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def test_each_stage_is_a_task_run_and_the_artifacts_tell_the_story(tmp_path):
    rest_em(make_config(tmp_path, iterations=1, run="seen"))
    with get_client(sync_client=True) as client:
        flow_run = next(r for r in client.read_flow_runs() if r.name == "seen")
        tasks = {t.name: t.state_type.value for t in client.read_task_runs() if t.flow_run_id == flow_run.id}
        artifacts = {a.key: a for a in client.read_artifacts() if a.flow_run_id == flow_run.id and a.key}
    assert flow_run.state_type.value == "COMPLETED"
    stages = {"problems", "base", "iter-0/evaluate", "iter-1/generate", "iter-1/score", "iter-1/select"}
    assert stages | {"iter-1/train", "iter-1/evaluate", "best", "final/base", "final/best"} == set(tasks)
    assert set(tasks.values()) == {"COMPLETED"}
    assert {"seen-iterations", "seen-mlflow", "seen-report"} <= set(artifacts)
    assert "test accuracy" in artifacts["seen-report"].data


@pytest.mark.parametrize("flow", ["spin", "sft", "dpo"])
def test_the_other_flows_are_flow_runs_too(tmp_path, flow):
    settings = small(tmp_path) | {"run": flow}
    if flow == "spin":
        settings |= {"iterations": 1, "generate": {"samples": 1, "max_tokens": 48}}
    if flow == "dpo":
        pairs = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no"} for n in range(60)]
        settings |= {"pairs": write(tmp_path / "pairs.jsonl", pairs)}
    loaded = own_flows()[flow].load()
    loaded.flow(loaded.settings.model_validate(settings))
    with get_client(sync_client=True) as client:
        flow_run = next(r for r in client.read_flow_runs() if r.name == flow)
        tasks = {t.name: t.state_type.value for t in client.read_task_runs() if t.flow_run_id == flow_run.id}
        artifacts = {a.key for a in client.read_artifacts() if a.flow_run_id == flow_run.id}
    assert flow_run.state_type.value == "COMPLETED"
    assert {"problems", "iter-1/train", "final/best"} <= set(tasks) and set(tasks.values()) == {"COMPLETED"}
    assert f"{flow}-report" in artifacts


def test_a_failed_stage_fails_its_task_run_and_the_flow_run(tmp_path, processes, monkeypatch, capsys):
    monkeypatch.setenv("STUB_CRASH", "iter-1/train")
    with pytest.raises(ChildError):
        rest_em(make_config(tmp_path, iterations=1, run="failing"))
    with get_client(sync_client=True) as client:
        flow_run = next(r for r in client.read_flow_runs() if r.name == "failing")
        failed = [t.name for t in client.read_task_runs() if t.state_type.value == "FAILED"]
        logs = [log.message for log in client.read_logs() if log.flow_run_id == flow_run.id]
    assert flow_run.state_type.value == "FAILED"
    assert failed == ["iter-1/train"]
    assert (
        "the stub was told to crash" in flow_run.state.message
        and "Run the same command again" in flow_run.state.message
    )
    assert not [log for log in logs if "Traceback" in log], "the sentences say what happened"
    assert "Traceback" not in capsys.readouterr().err
