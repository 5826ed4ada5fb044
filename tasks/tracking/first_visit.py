"""A script at the head of a server's pages, for a browser that comes for the first time.

Prefect and MLflow keep in the browser what a user has seen and chosen. Without it, their pages open with pop-ups, and
MLflow's on traces of GenAI apps. A choice that the user made in the browser stays.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_REMEMBER = "for (const [key, value] of Object.entries({})) localStorage[key] ??= value;"


def remember(choices: Mapping[str, Any]) -> str:
    """A script that stores each value, as JSON, in a browser that has none under its key."""
    return _REMEMBER.replace("{}", json.dumps({key: json.dumps(value) for key, value in choices.items()}))


class FirstVisit:
    """Adds a script to an app's pages: HTML at the paths that are a page's."""

    def __init__(self, app: ASGIApp, script: str, is_page: Callable[[str], bool]) -> None:
        self.app, self.is_page = app, is_page
        self.script = f"<script>{script}</script>".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (scope["type"], scope.get("method")) != ("http", "GET") or not self.is_page(scope["path"]):
            await self.app(scope, receive, send)
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        start: Message = {}
        page = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_html(message):
                start.update(message)
                return
            if not start:
                await send(message)
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

        await self.app({**scope, "headers": plain}, receive, collect)  # compressed, a page has no head to be found


def _is_html(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/html")
