"""Registers with a Prefect server what the services need: the work pool, the limit `gpu`, automations, deployments.

A separate program: `python -m deployments.register GPUS`. It may be run repeatedly.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists

from deployments.generate import POOL, PREFECT_YAML, with_others
from deployments.notifications import read_notifications, register_notifications
from tasks.stage.devices import LIMIT
from tasks.stage.environment import HEARTBEAT_SECONDS

CRASHED = "autodidact: no heartbeat"
MISSED = 4  # heartbeats


def main(gpus: int) -> None:
    """Register everything; deployments are those in `prefect.yaml`, and one for each flow of another package."""
    with get_client(sync_client=True) as client:
        register_pool(client)
        # A limit of 0 would block every stage, and without a GPU no stage asks for the limit.
        client.upsert_global_concurrency_limit_by_name(LIMIT, max(gpus, 1))
        register_automations(client)
        register_notifications(client, read_notifications(os.environ))
        with schedules_kept(client):
            deploy_all(with_others(PREFECT_YAML.read_text(encoding="utf-8")))


def deploy_all(prefect_yaml: str) -> None:
    """Run `prefect deploy --all` on the text of a prefect.yaml."""
    prefect = Path(sys.executable).with_name("prefect")
    with NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(prefect_yaml)
        file.flush()
        subprocess.run([prefect, "--no-prompt", "deploy", "--all", "--prefect-file", file.name], check=True)


@contextmanager
def schedules_kept(client: SyncPrefectClient) -> Iterator[None]:
    """Restore the schedules of existing deployments, since `prefect deploy` resets them to those in `prefect.yaml`.

    So schedules that were switched on or added in the UI stay. One whose parameters its deployment has no more goes to
    a deployment of the same flow that has them.
    """
    before = {deployment.id: deployment.schedules for deployment in client.read_deployments()}
    yield
    after = client.read_deployments()
    for deployment in after:
        if deployment.id in before:
            for new in deployment.schedules:
                client.delete_deployment_schedule(deployment.id, new.id)
    for deployment in after:
        for schedule in before.get(deployment.id, []):
            fields = set(DeploymentScheduleCreate.model_fields)
            old = DeploymentScheduleCreate(**schedule.model_dump(include=fields))
            same = [deployment, *(other for other in after if other.flow_id == deployment.flow_id)]
            fitting = next((one for one in same if set(old.parameters) <= _parameters(one)), None)
            if fitting is None:
                print(f"A schedule of {deployment.name} is gone: no deployment has its parameters {old.parameters}.")
            else:
                client.create_deployment_schedules(fitting.id, [old])


def _parameters(deployment: DeploymentResponse) -> set[str]:
    return set((deployment.parameter_openapi_schema or {}).get("properties", {}))


def register_pool(client: SyncPrefectClient) -> None:
    """Register a pool of local processes. Each deployment has its own limit, so the pool needs none."""
    description = "Runs flows as processes on this machine."
    try:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process", description=description))
    except ObjectAlreadyExists:
        client.update_work_pool(POOL, WorkPoolUpdate(description=description))


def register_automations(client: SyncPrefectClient) -> None:
    """Mark a flow run as Crashed if its heartbeats stop: its process and its worker were killed together."""
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={
            "prefect.flow-run.heartbeat",
            "prefect.flow-run.Completed",
            "prefect.flow-run.Failed",
            "prefect.flow-run.Cancelled",
            "prefect.flow-run.Crashed",
            "prefect.flow-run.Suspended",
        },
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=MISSED * HEARTBEAT_SECONDS),
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED,
        name="Crashed",
        message="No heartbeat: its process is gone. Run it again to continue where it stopped.",
    )
    wanted = AutomationCore(name=CRASHED, trigger=trigger, actions=[action])
    for old in client.read_automations_by_name(CRASHED):
        client.delete_automation(old.id)
    client.create_automation(wanted)


if __name__ == "__main__":
    main(int(sys.argv[1]))
