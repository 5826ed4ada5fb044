"""Flow runs are named after their run from the moment they are submitted, not only once they begin.

Prefect gives a new flow run a random name, also on the page of a form, until its flow begins and names it. So a user
who has just submitted a form would look for a name that is not there yet.
"""

import json
import re
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SUBMITS = re.compile(r"/api/deployments/[^/]+/create_flow_run")


class NamedAfterRuns:
    """Names a flow run that is submitted, if its parameters name a run without a date in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method")) != ("http", "POST") or not _SUBMITS.fullmatch(scope["path"]):
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":  # the client is gone
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        body = named(body)
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app({**scope, "headers": headers}, replay, send)


def named(body: bytes) -> bytes:
    """The body of a submission with the run's name as the flow run's; unchanged if it names none."""
    try:
        told: dict[str, Any] = json.loads(body)
        parameters = told["parameters"]
        run = parameters.get("run") or parameters["config"]["run"]
    except (ValueError, KeyError, TypeError, AttributeError):  # Prefect says what is wrong, if anything is
        return body
    if not isinstance(run, str) or "%" in run:
        return body
    return json.dumps(told | {"name": run}).encode()
