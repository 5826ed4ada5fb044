"""What a server's pages tell a browser that comes for the first time."""

from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from tasks.tracking.prefect_server import CHECK, opens_on_key

PAGE = "<!doctype html><html><head><title>Prefect</title></head></html>"
REFUSED = 401
Get = Callable[..., Response]


@pytest.fixture
def get() -> Get:
    routes = [
        Route(CHECK, lambda _: JSONResponse("no key", status_code=REFUSED)),
        Route("/assets/code.js", lambda _: Response("<head>", media_type="text/javascript")),
        Route("/api/page", lambda _: HTMLResponse(PAGE)),
        Route("/{path:path}", lambda _: HTMLResponse(PAGE)),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(GZipMiddleware, minimum_size=1)])
    return TestClient(opens_on_key(app)).get


@pytest.mark.parametrize("path", ["/", "/runs/flow-run/1"])
def test_a_page_asks_a_browser_without_a_key_for_it_also_where_it_would_be_compressed(get: Get, path: str) -> None:
    text = get(path, headers={"accept-encoding": "gzip"}).text
    assert "/login?redirect=" in text.partition("<title>")[0] and text.endswith("<title>Prefect</title></head></html>")


@pytest.mark.parametrize("path", ["/assets/code.js", "/api/page", "/v2/deployments"])
def test_nothing_else_is_changed(get: Get, path: str) -> None:
    assert "<script>" not in get(path).text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, REFUSED),
        ({"referer": "http://127.0.0.1:4200/login?redirect=/"}, 200),
        ({"referer": "http://127.0.0.1:4200/login", "authorization": "Basic d3Jvbmc="}, REFUSED),
        ({"referer": "http://127.0.0.1:4200/v2/login"}, REFUSED),
        ({"referer": "http://127.0.0.1:4200/dashboard"}, REFUSED),
    ],
)
def test_only_the_page_that_asks_for_the_key_is_not_told_that_there_is_none(
    get: Get, headers: dict[str, str], status: int
) -> None:
    answer = get(CHECK, headers=headers)
    assert answer.status_code == status and (status == REFUSED or answer.json() == "")
