"""The guard in front of a server: whom it answers."""

import base64
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from tasks.tracking.guard import HEALTH, KeyNeeded, guarded, own_origins

OUTER = "https://prefect.example.org"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


async def greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()


APP = Starlette(
    routes=[
        Route("/", lambda request: PlainTextResponse("hello"), methods=["GET", "POST"]),
        Route(HEALTH, lambda request: PlainTextResponse("well")),
        WebSocketRoute("/socket", greet),
    ]
)
GUARDED = guarded(APP, [*own_origins("10.0.0.5", 4200), OUTER])


def ask(host: str, method: str = "GET", **headers: str) -> int:
    with TestClient(GUARDED, base_url=f"http://{host}") as client:
        return client.request(method, "/", headers={k.replace("_", "-"): v for k, v in headers.items()}).status_code


@pytest.mark.parametrize(
    "host", ["10.0.0.5:4200", "127.0.0.1:4200", "localhost:4200", "LOCALHOST:4200", "[::1]:4200", "prefect.example.org"]
)
def test_own_names_are_answered(host):
    assert ask(host) == 200


@pytest.mark.parametrize("host", ["stranger.example", "localhost.stranger.example", "10.0.0.6:4200", "[::2]:4200"])
def test_other_names_are_not(host):
    assert ask(host) == 400


@pytest.mark.parametrize("origin", ["http://10.0.0.5:4200", "http://127.0.0.1:4200", "http://[::1]:4200", OUTER])
def test_own_pages_are_answered_whatever_the_browser_calls_the_site(origin):
    assert ask("127.0.0.1:4200", "POST", Origin=origin, Sec_Fetch_Site="cross-site") == 200


@pytest.mark.parametrize(
    "origin",
    [
        *("http://stranger.example", "null", "", "http://127.0.0.1:5000", "https://127.0.0.1:4200", "http://127.0.0.1"),
        *("http://prefect.example.org", "http://127.0.0.1:4200.stranger.example", "http://127.0.0.1:42000"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_other_pages_are_not(origin, method):
    assert ask("127.0.0.1:4200", method, Origin=origin) == 403


@pytest.mark.parametrize(
    ("fetch", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        (LINK, 200),
        (LINK | {"Sec-Fetch-Site": "same-site"}, 200),
        (LINK | {"Sec-Fetch-Dest": "iframe"}, 403),
        (LINK | {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_a_link_may_open_a_page_but_nothing_may_be_loaded_from_elsewhere(fetch, status):
    assert ask("127.0.0.1:4200", **fetch) == status


@pytest.mark.parametrize(("headers", "opens"), [({}, True), ({"Origin": OUTER}, True), ({"Origin": "null"}, False)])
def test_websockets_too(headers: dict[str, Any], opens):
    with TestClient(GUARDED) as client:
        try:
            with client.websocket_connect("ws://127.0.0.1:4200/socket", headers=headers):
                opened = True
        except WebSocketDisconnect:
            opened = False
    assert opened is opens


def test_the_usual_port_is_left_out_as_browsers_do():
    assert own_origins("Host.Example", 80)[0] == "http://host.example"


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        *((given, 200) for given in ("Bearer s:ä", "bearer s:ä", basic("anyone:s:ä"), basic(":s:ä"))),
        *((given, 401) for given in ("", "Bearer", "Bearer ", "Bearer s", "s:ä", "Basic s:ä", "Basic", "Basic !")),
        *((given, 401) for given in (basic("s:ä"), basic("anyone:"), basic("s:ä:"), "Digest s:ä")),
    ],
)
def test_a_key_comes_as_a_token_or_as_a_password(given: str, status: int):
    with TestClient(KeyNeeded(APP, "s:ä")) as client:
        answer = client.get("/", headers={"authorization": given.encode()})
        assert answer.status_code == status
        assert ("Basic" in answer.headers.get("www-authenticate", "")) == (status == 401)
        assert client.get(HEALTH).status_code == 200
