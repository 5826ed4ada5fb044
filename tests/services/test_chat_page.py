"""The page of `autodidact serve --ui` in a real browser, before a server whose answers are set."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from deployments.chat_page import ChatPage, heard
from tasks.tracking.guard import own_origins
from tests.browser import PATIENCE_MS, real_browser
from tests.endpoint import Server, serving
from tests.waiting import eventually

KEY = "a-long-random-text"
ELSEWHERE = "https://elsewhere.example"
PICTURES = f"![a]({ELSEWHERE}/a.png) ![b](/gradio_api/file={ELSEWHERE}/b.png)"
CODE = "def f():\n    return 1\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def address(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    asked, folder = f"http://127.0.0.1:{server.server_port}/v1", tmp_path_factory.mktemp("gradio")
    own = own_origins("127.0.0.1", port)
    page = ChatPage("127.0.0.1", port, asked, "mine", "the best", "Be brief.", KEY, own, folder)
    threading.Thread(target=page.run, daemon=True).start()

    def answers() -> bool:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), timeout=1).close() is None
        return False

    eventually(answers)  # before a browser starts: gradio still imports, and playwright looks through all modules
    return f"http://127.0.0.1:{port}"


def say(page: Page, text: str) -> None:
    page.get_by_role("textbox").fill(text)
    page.get_by_role("textbox").press("Enter")


def test_a_conversation(server: Server, address: str) -> None:
    answers = {"one": (200, CODE + PICTURES), "two": (400, "It is too long."), "three": (200, "The end.")}
    server.answer = lambda body: answers[body["messages"][-1]["content"]]
    with real_browser() as browser:
        page = browser.new_context(http_credentials={"username": "anyone", "password": KEY}).new_page()
        page.set_default_timeout(PATIENCE_MS)
        loaded: list[tuple[str, int]] = []
        page.on("response", lambda response: loaded.append((response.url, response.status)))
        page.goto(address)
        say(page, "one")
        expect(page.get_by_alt_text("b")).to_be_attached()
        say(page, "two")
        expect(page.get_by_text("It is too long.")).to_be_visible()
        say(page, "three")
        expect(page.get_by_text("The end.")).to_be_visible()
    system, one, said = server.requests[-1]["messages"][:3]
    assert (system["content"], one["content"], said["content"]) == ("Be brief.", "one", CODE + PICTURES)
    assert [turn["content"] for turn in server.requests[-1]["messages"][3:]] == ["three"]
    assert server.keys == {f"Bearer {KEY}"}
    assert [url for url, _ in loaded if not url.startswith((address, "data:", "blob:"))] == []
    assert {status for url, status in loaded if "file=" in url} == {404}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, 200) for path in ("/", "/config", "/theme.css")),
        *((path, 404) for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file%3Dhttps://elsewhere.example/")),
        *((path, 404) for path in ("/gradio_api/proxy=https://a.hf.space/", "/gradio_api/upload", "/monitoring")),
        *((path, 404) for path in ("/login", "/gradio_api/deep_link", "/gradio_api/runs", "/openapi.json")),
    ],
)
def test_only_what_a_conversation_needs_is_answered(address: str, path: str, status: int) -> None:
    assert httpx.get(address + path, auth=("anyone", KEY)).status_code == status
    assert httpx.get(address + path).status_code == 401


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ([], []),
        (["user: a", "assistant: b"], ["a", "b"]),
        (["user: a", "user: b", "assistant: c"], ["b", "c"]),
        (["user: a", "assistant: b", "user: c"], ["a", "b"]),
        (["user: a", "assistant: ", "user: c", "assistant: d"], ["c", "d"]),
    ],
)
def test_a_turn_without_an_answer_was_not_heard(said: list[str], kept: list[str]) -> None:
    turns = [dict(zip(("role", "content"), turn.split(": "), strict=True)) for turn in said]
    assert [turn["content"] for turn in heard(turns)] == kept
