"""The name of a flow run that was just submitted."""

import json
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tasks.tracking.flow_run_names import NamedAfterRuns, named

SUBMIT = "/api/deployments/1/create_flow_run"


async def echo(request: Request) -> Response:
    body = await request.body()
    assert int(request.headers["content-length"]) == len(body)
    return JSONResponse(await request.json())


CLIENT = TestClient(NamedAfterRuns(Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])])))


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"run": "mine", "recipe": "demo"}, "mine"),
        ({"config": {"run": "mine"}}, "mine"),
        ({"run": "Läufe/1"}, "Läufe/1"),
        ({"run": ""}, "random"),
        ({"run": "nightly-%Y-%m-%d"}, "random"),
        ({"config": {}}, "random"),
        ({"config": None}, "random"),
        ({"run": 3}, "random"),
        ({}, "random"),
    ],
)
def test_a_submitted_flow_run_is_named_after_its_run(parameters: dict[str, Any], name: str) -> None:
    told = {"parameters": parameters, "name": "random", "tags": ["own"]}
    assert CLIENT.post(SUBMIT, json=told).json() == told | {"name": name}


def test_other_requests_are_passed_on() -> None:
    told = {"parameters": {"run": "mine"}, "name": "random"}
    assert CLIENT.post("/api/flow_runs/filter", json=told).json() == told


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"parameters": []}', json.dumps({"name": "x"}).encode()])
def test_what_is_no_submission_is_left_to_prefect(body: bytes) -> None:
    assert named(body) == body
