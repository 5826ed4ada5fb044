"""MLflow's server behind a guard, as served by `mlflow server --app-name autodidact`.

MLflow alone lets pages of other origins post to paths outside /api/, and trusts every page of this machine, whatever
its port. Its pages open on traces of GenAI apps, where no run is in sight, and beside an assistant, until the browser
remembers otherwise.
"""

import json
import os

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.tracking.guard import ORIGINS, guarded

# As MLflow's pages keep it (`useLocalStorage`, key and version). A choice that the user made there stays.
REMEMBERED = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "mlflow.detectIssues.guidanceShown_v1": True,
    "mlflow.flagForReview.guidanceShown_v1": True,
    "mlflow.home.getting-started.collapsed_v1": True,
}
SCRIPT = "<script>for (const [key, value] of Object.entries({})) localStorage[key] ??= value</script>"


def create_app() -> ASGIApp:
    """MLflow's app behind the guard; a factory for uvicorn."""
    from mlflow.server.fastapi_app import app

    return guarded(OpensOnRuns(app), os.environ[ORIGINS].split(","))


class OpensOnRuns:
    """Adds to MLflow's page what a browser remembers once "Model training" was chosen and the pop-ups were closed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        stored = {key: json.dumps(value) for key, value in REMEMBERED.items()}
        self.script = SCRIPT.replace("{}", json.dumps(stored)).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method"), scope.get("path")) != ("http", "GET", "/"):
            await self.app(scope, receive, send)
            return
        start: Message = {}
        page = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            page.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            content = bytes(page).replace(b"<head>", b"<head>" + self.script, 1)
            headers = MutableHeaders(raw=start["headers"])
            if "content-length" in headers:
                headers["content-length"] = str(len(content))
            await send(start)
            await send({"type": "http.response.body", "body": content})

        await self.app(scope, receive, collect)
