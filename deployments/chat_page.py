"""The page of `autodidact serve --ui`: Gradio's chat interface before an OpenAI-compatible server."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data.errors import UsageError
from tasks.tracking.guard import KeyNeeded, guarded

# What a model writes is shown as Markdown. An image in it would send the conversation to whoever it names.
POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; form-action 'self'; base-uri 'self'; "
    "frame-ancestors 'none'"
)


def require_gradio() -> None:
    """Refuse to go on without the packages of the page.

    Raises:
        UsageError: one is missing.
    """
    if missing := [name for name in ("gradio", "openai") if find_spec(name) is None]:
        raise UsageError(
            f"--ui needs the package {missing[0]}, which is not installed.",
            what_next="Install the extra with it: pip install 'autodidact[ui]'.",
        )


def chat_page(server: str, model: str, about: str, system: str | None, key: str | None, origins: list[str]) -> ASGIApp:
    """A page to talk with a served model, for the pages' own origins alone.

    Args:
        server: address of the OpenAI-compatible server, with /v1.
        model: the name that it gives the model.
        about: what the model is, in words.
        system: the system message of every conversation.
        key: what the server's requests need, and then those of the page; None: nothing.
        origins: the page's own, see `tasks.tracking.guard.own_origins`.
    """
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_MCP_SERVER": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    import gradio
    from fastapi import FastAPI

    interface = gradio.ChatInterface(
        _answers(server, model, system, key),
        title=model,
        description=about,
        analytics_enabled=False,
        api_visibility="private",
        chatbot=gradio.Chatbot(height="70vh", show_label=False, buttons=["copy", "copy_all"]),
    )
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])  # no requests
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = gradio.mount_gradio_app(
        app, interface, path="/", footer_links=[], run_history=False, ssr_mode=False, pwa=False, theme=theme
    )
    own = _OwnContentOnly(page)
    return guarded(KeyNeeded(own, key) if key else own, origins)


def _answers(server: str, model: str, system: str | None, key: str | None) -> Any:
    from gradio import Error
    from openai import APIError, DefaultHttpxClient, OpenAI

    no_proxy = DefaultHttpxClient(trust_env=False)
    client = OpenAI(base_url=server, api_key=key or "none", max_retries=0, http_client=no_proxy)

    def answer(message: str, history: list[dict[str, Any]]) -> Iterator[str]:
        turns = [{"role": turn["role"], "content": _text(turn["content"])} for turn in history]
        messages: Any = [{"role": "system", "content": system}] * bool(system) + turns
        said = ""
        try:
            asked = [*messages, {"role": "user", "content": message}]
            with client.chat.completions.create(model=model, messages=asked, stream=True) as pieces:
                for piece in pieces:
                    said += (piece.choices[0].delta.content or "") if piece.choices else ""
                    yield said
        except APIError as error:
            raise Error(str(error), print_exception=False) from error

    return answer


def _text(content: Any) -> str:
    """The text of a turn, which Gradio keeps in parts."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class _OwnContentOnly:
    """Tells browsers to load and send nothing elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = POLICY
            await send(message)

        await self.app(scope, receive, with_policy)
