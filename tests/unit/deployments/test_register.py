"""Schedules stay when `up` deploys again, on a deployment that has their parameters."""

from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule

from deployments.register import schedules_kept


class Client:
    """Deployments of a server, and what is done to their schedules."""

    def __init__(self, **parameters: set[str]) -> None:
        self.deployments = {name: self._deployment(name, known) for name, known in parameters.items()}

    def _deployment(self, name: str, known: set[str]) -> Any:
        schema = {"properties": {key: {} for key in known}}
        return SimpleNamespace(id=name, name=name, flow_id="flow", schedules=[], parameter_openapi_schema=schema)

    def read_deployments(self) -> list[Any]:
        return [SimpleNamespace(**vars(d) | {"schedules": [*d.schedules]}) for d in self.deployments.values()]

    def delete_deployment_schedule(self, deployment: str, schedule: Any) -> None:
        found = self.deployments[deployment]
        found.schedules = [kept for kept in found.schedules if kept.id != schedule]

    def create_deployment_schedules(self, deployment: str, schedules: list[Any]) -> None:
        self.deployments[deployment].schedules += schedules


def scheduled(**parameters: Any) -> DeploymentSchedule:
    return DeploymentSchedule(schedule=CronSchedule(cron="0 2 * * *"), active=True, parameters=parameters)


def test_schedules_go_where_their_parameters_are(capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(own={"recipe", "run"}, every={"config"})
    old = [scheduled(run="mine"), scheduled(config={"run": "mine"}), scheduled(), scheduled(other=1)]
    client.deployments["own"].schedules = old
    with schedules_kept(client):  # type: ignore[arg-type]
        client.deployments["own"].schedules = [scheduled(recipe="example")]
    there = {name: [kept.parameters for kept in d.schedules] for name, d in client.deployments.items()}
    assert there == {"own": [{"run": "mine"}, {}], "every": [{"config": {"run": "mine"}}]}
    assert "A schedule of own is gone: no deployment has its parameters {'other': 1}." in capsys.readouterr().out
