"""The page of `autodidact serve --ui`: Gradio's chat interface before an OpenAI-compatible server."""

import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tasks.tracking.guard import KeyNeeded, guarded

# What a model writes is shown as Markdown. An image in it would send the conversation to whoever it names: directly, or
# by way of Gradio's route for files, which also fetches addresses. So nothing is loaded from elsewhere, and of Gradio's
# routes only those are open that a conversation in text needs.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'; base-uri 'self'; "
    "frame-ancestors 'none'"
)
ROUTES = re.compile(
    r"/|/(config|theme\.css|favicon\.ico)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/((queue|run|heartbeat)/.*|(cancel|reset|startup-events|info|app_id|theme\.css)/?)"
)


class ChatPage:
    """A page to talk with a served model. It holds its port from the beginning, and answers once it runs.

    Args:
        server: address of the OpenAI-compatible server, with /v1.
        model: the name that it gives the model.
        about: what the model is, in words.
        system: the system message of every conversation.
        key: what the server's requests need, and then those of the page; None: nothing.
        origins: the page's own, see `tasks.tracking.guard.own_origins`.
        folder: for Gradio's temporary files.
    """

    def __init__(
        self,
        host: str,
        port: int,
        server: str,
        model: str,
        about: str,
        system: str | None,
        key: str | None,
        origins: Sequence[str],
        folder: Path,
    ) -> None:
        told = {"ANALYTICS_ENABLED": "False", "MCP_SERVER": "False", "TEMP_DIR": str(folder)}
        os.environ.update({f"GRADIO_{name}": value for name, value in told.items()})
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family)
        own = _OwnContentOnly(_chat(server, model, about, system, key))
        self.app = guarded(KeyNeeded(own, key) if key else own, origins)

    def run(self) -> None:
        """Answer requests, until the program ends."""
        import uvicorn

        uvicorn.Server(uvicorn.Config(self.app, log_level="warning")).run([self.socket])


def _chat(server: str, model: str, about: str, system: str | None, key: str | None) -> ASGIApp:
    import gradio
    from starlette.applications import Starlette

    interface = gradio.ChatInterface(
        _answers(server, model, system, key),
        title=model,
        description=about,
        analytics_enabled=False,
        api_visibility="private",
        concurrency_limit=None,  # the server decides how many it answers together
        chatbot=gradio.Chatbot(height="70vh", show_label=False, buttons=["copy", "copy_all"]),
    )
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # no requests
    page: ASGIApp = gradio.mount_gradio_app(
        Starlette(), interface, path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False, theme=theme
    )
    return page


def _answers(server: str, model: str, system: str | None, key: str | None) -> Any:
    from gradio import Warning
    from openai import APIError, DefaultHttpxClient, OpenAI

    no_proxy = DefaultHttpxClient(trust_env=False)
    client = OpenAI(base_url=server, api_key=key or "none", max_retries=0, http_client=no_proxy)

    def answer(message: str, history: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        asked: Any = [{"role": "system", "content": system}] * bool(system) + heard(history)
        asked += [{"role": "user", "content": message}]
        said = ""
        try:
            with client.chat.completions.create(model=model, messages=asked, stream=True) as pieces:
                for piece in pieces:
                    said += (piece.choices[0].delta.content or "") if piece.choices else ""
                    # In parts, since Gradio removes the indentation of a plain text.
                    yield {"role": "assistant", "content": [{"type": "text", "text": said}]}
        except APIError as error:
            Warning(_explained(error), title="No answer")  # Gradio's; after its Error, nothing more could be entered

    return answer


def heard(history: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The turns of a conversation as messages. A turn that got no answer was not heard.

    Args:
        history: as Gradio keeps it: it also has messages that failed or were stopped before an answer began.
    """
    turns = [{"role": str(turn["role"]), "content": _text(turn["content"])} for turn in history]
    kept: list[dict[str, str]] = []
    for asked, answer in pairwise(turns):
        if (asked["role"], answer["role"]) == ("user", "assistant") and answer["content"]:
            kept += [asked, answer]
    return kept


def _text(content: Any) -> str:
    """The text of a turn, which Gradio keeps in parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _explained(error: Any) -> str:
    """What the server said, which for a conversation that is too long also says so."""
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return f"{said or error} If the conversation has become too long, clear it."


class _OwnContentOnly:
    """Tells browsers to load and send nothing elsewhere, and closes routes that a conversation does not need."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = POLICY
            await send(message)

        if scope["type"] == "lifespan" or (scope["type"] == "http" and ROUTES.fullmatch(scope["path"])):
            await self.app(scope, receive, with_policy)
        elif scope["type"] == "http":
            await PlainTextResponse("This page has no such part.", 404)(scope, receive, with_policy)
        else:
            await send({"type": "websocket.close"})
