"""MLflow's page tells a browser once to open experiments on their runs; nothing else is changed."""

import asyncio

import httpx
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.mlflow_server import opens_on_runs

PAGE = "<!doctype html><html><head><title>MLflow</title></head></html>"


def served() -> ASGIApp:
    other = Route("/other", lambda _: PlainTextResponse("<head>"))
    page = Route("/", lambda _: HTMLResponse(PAGE, headers={"x-frame-options": "SAMEORIGIN"}))
    return opens_on_runs(Starlette(routes=[page, other]))


def test_the_page_remembers_for_the_browser_and_the_rest_is_as_it_was() -> None:
    asyncio.run(look())


async def look() -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(served()), base_url="http://mlflow") as client:
        page = await client.get("/")
        assert "mlflow.workflowType_v1" in page.text.partition("<title>")[0] and "machine_learning" in page.text
        assert page.text.endswith("<title>MLflow</title></head></html>")
        assert (page.headers["x-frame-options"], page.headers["content-length"]) == (
            "SAMEORIGIN",
            str(len(page.content)),
        )
        assert (await client.get("/other")).text == "<head>"
        assert (await client.head("/")).status_code == 200
