"""`autodidact chat` in a terminal and `autodidact serve` over HTTP: both answer as the loop's own evaluation does."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from playwright.sync_api import expect

from data.rows import Problem, Sample
from data.storage import read_rows
from models.config import SamplingConfig
from models.speaker import Speaker
from tasks.stage.environment import child_environment
from tasks.tracking.guard import KEY
from tests.browser import PATIENCE_MS, real_browser
from tests.e2e.conftest import generate
from tests.e2e.test_generate import write_program
from tests.waiting import PATIENCE, eventually, wait_gone

ASKED = 100
GREEDY = SamplingConfig(samples=1, temperature=0, top_k=0, max_tokens=40, dtype="float32")
COMMAND = [sys.executable, "-m", "flows.commands.cli"]
SECRET = "a-long-random-text"


@pytest.fixture(scope="module")
def asked(problems: list[Problem]) -> list[Problem]:
    return [p for p in problems if p.split == "test"][:ASKED]


@pytest.fixture(scope="module")
def evaluated(policy: Path, asked: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The greedy answers of the loop's own evaluation."""
    folder = tmp_path_factory.mktemp("evaluated")
    generate(write_program(folder, policy, asked, 1, 0.0))
    return [row.text for row in read_rows(Sample, folder / "samples")]


def test_a_policy_in_a_chat_answers_like_the_evaluation(policy: Path, asked: list[Problem], evaluated: list[str]):
    speaker = Speaker(policy, "float32", "refuse")
    said = ["".join(speaker.answer(problem.messages, GREEDY)) for problem in asked]
    assert said == evaluated


@dataclass
class Terminal:
    """A program in a terminal of its own."""

    process: subprocess.Popen[bytes]
    master: int
    shown: str = ""
    read: int = 0

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def ask(self, text: str, says: str = "") -> str:
        """Enter a line; wait for what is said, and for the next prompt. Return everything in between."""
        self.type(text)
        return self.read_until(f"(?s){says}.*\n> $").replace("\r", "")

    def interrupt(self, says: str) -> None:
        """Press Ctrl-C until it is heard: readline misses one that comes before it waits for keys."""
        begin, deadline = len(self.shown), time.monotonic() + PATIENCE
        while says not in self.shown[begin:]:
            assert time.monotonic() < deadline, self.shown
            self.type("\x03")
            self._listen(seconds=2)
        self.read_until(f"(?s){says}.*\n> $")

    def read_until(self, pattern: str) -> str:
        """Wait for a pattern after what was read before; return what was shown up to its end."""
        begin, deadline = self.read, time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.shown[begin:])):
            assert time.monotonic() < deadline and self.process.poll() is None, self.shown
            self._listen(seconds=0.2)
        self.read = begin + found.end()
        return self.shown[begin : self.read]

    def _listen(self, seconds: float) -> None:
        """Take what is shown next, if that is soon."""
        if select.select([self.master], [], [], seconds)[0]:
            self.shown += os.read(self.master, 1 << 16).decode(errors="replace")


@pytest.fixture
def terminal(policy: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A chat of a policy with itself."""
    master, slave = pty.openpty()

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 4000, 0, 0))  # no line is broken
    (tmp_path / "inputrc").write_text("set enable-bracketed-paste off\n")

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    told = ["--temperature", "0", "--max-tokens", "40"]
    process = subprocess.Popen(
        [*COMMAND, "chat", str(policy), "--against", str(policy), *told],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=child_environment() | {"TERM": "xterm", "INPUTRC": str(tmp_path / "inputrc")},
        preexec_fn=own_terminal,
    )
    os.close(slave)
    yield Terminal(process, master)
    process.kill()
    process.wait()
    os.close(master)


def test_a_conversation_in_a_terminal(terminal: Terminal, asked: list[Problem], evaluated: list[str], tmp_path: Path):
    assert "policy: " in terminal.read_until(r"(?s)Ctrl-D leaves\..*\n> $")
    shown = terminal.ask(asked[0].messages[0]["content"] + "\n")
    assert shown.count(f"policy:\n{evaluated[0]}") == 2  # both sides
    terminal.ask("/what\n", "There is no command /what")
    terminal.ask("word " * 400 + "\n", "the model's context is 1024")
    terminal.interrupt("Ctrl-D leaves")
    terminal.ask("/save said.jsonl\n", "Appended to said.jsonl")
    row = json.loads((tmp_path / "said.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
    assert row["messages"][1]["content"] == evaluated[0]
    terminal.ask("/system Be brief.\n", "system message is set")
    terminal.type("/quit\n")
    assert terminal.process.wait(PATIENCE) == 0


def test_a_message_from_a_pipe_gets_only_its_answer(policy: Path, asked: list[Problem], evaluated: list[str], tmp_path):
    done = subprocess.run(
        [*COMMAND, "chat", str(policy), "--temperature", "0", "--max-tokens", "40"],
        input=asked[1].messages[0]["content"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=child_environment(),
        check=True,
    )
    assert done.stdout == evaluated[1] + "\n"
    assert done.stderr == f"{policy}: not the result of a run here\n"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen[str]
    address: str
    page: str

    def post(self, body: dict[str, object], **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {SECRET}"} | headers
        return httpx.post(f"{self.address}/v1/chat/completions", json=body, headers=given, timeout=PATIENCE)


@pytest.fixture(scope="module")
def server(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        port, page = one.getsockname()[1], other.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    process = subprocess.Popen(
        [*COMMAND, "serve", str(policy), "--port", str(port), "--name", "mine", "--ui", "--ui-port", str(page)],
        cwd=folder,
        env=child_environment() | {KEY: SECRET, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    while "Its page is" not in shown:
        line = process.stdout.readline()
        assert line, shown
        shown += line
    yield Server(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{page}")
    process.kill()


def test_a_served_policy_answers_like_the_evaluation(server: Server, asked: list[Problem], evaluated: list[str]):
    def answer(problem: Problem) -> str:
        settings = {"model": "mine", "temperature": 0, "max_tokens": 40, "messages": list(problem.messages)}
        return str(server.post(settings).json()["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(answer, asked)) == evaluated


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"origin": "http://stranger.example"}, 403),
        ({"host": "stranger.example"}, 400),
    ],
)
def test_strangers_are_not_answered(server: Server, headers: dict[str, str], status: int):
    assert server.post({"model": "mine", "messages": []}, **headers).status_code == status


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"host": "stranger.example"}, 400)])
def test_strangers_see_no_page(server: Server, headers: dict[str, str], status: int):
    eventually(lambda: httpx.get(server.page, headers=headers).status_code == status)


def test_the_page_in_a_browser(server: Server, asked: list[Problem]):
    elsewhere = []
    with real_browser() as browser:
        context = browser.new_context(http_credentials={"username": "anyone", "password": SECRET})
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(server.page)
        page.get_by_role("textbox").fill(asked[0].messages[0]["content"])
        page.get_by_role("textbox").press("Enter")
        expect(page.get_by_text("####")).to_be_visible()
    assert [url for url in elsewhere if not url.startswith((server.page, "data:", "blob:"))] == []


def test_a_port_in_use_is_refused_before_anything_starts(server: Server, policy: Path, tmp_path: Path):
    port = server.address.rpartition(":")[2]
    done = subprocess.run(
        [*COMMAND, "serve", str(policy), "--port", port], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1 and f"Port {port}" in done.stderr and "--port" in done.stderr


def test_a_killed_server_leaves_no_engine(server: Server):
    """Of the server of the tests before; the last of them."""
    programs = psutil.Process(server.process.pid).children(recursive=True)
    assert programs
    server.process.send_signal(signal.SIGKILL)
    for program in programs:
        wait_gone(program.pid, 10)
    eventually(lambda: server.process.poll() is not None)
