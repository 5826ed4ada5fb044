"""Word when a run is over or waits for a decision, sent by the real server to a web server and a mail server here."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseServer, StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.notifications import ADDRESSES, AUTOMATION, BLOCKS, Notifications, register_notifications
from tests.services.conftest import BIN, Site, hang, settings
from tests.waiting import eventually


@dataclass
class Received:
    """Messages that came, and the servers that they came to."""

    web: list[dict[str, str]] = field(default_factory=list)
    mail: list[dict[str, str]] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @property
    def states(self) -> Counter[tuple[str, str]]:
        """How often the web server was told of a run and a state."""
        lines = [message["text"].splitlines() for message in self.web]
        return Counter((run.removeprefix("Run: "), state.removeprefix("State: ")) for _, run, state, *_ in lines)


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    """A web server and a mail server, which take what they are sent."""
    found = Received()

    class Web(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.web.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *told: Any) -> None: ...

    class Mail(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            for line in self.rfile:
                if line.upper().startswith(b"DATA"):
                    self.wfile.write(b"354 go on\r\n")
                    mail = message_from_bytes(b"".join(iter(self.rfile.readline, b".\r\n")))
                    text: Any = mail.get_payload(decode=True)
                    found.mail.append({"subject": str(mail["Subject"]), "to": str(mail["To"]), "text": text.decode()})
                self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 fine\r\n")

    with serving(HTTPServer(("127.0.0.1", 0), Web)) as web, serving(ThreadingTCPServer(("127.0.0.1", 0), Mail)) as mail:
        sender = "from=me@example.org&to=you@example.org"
        found.addresses = [f"http://127.0.0.1:{web}/hook?token=hush", f"mailto://127.0.0.1:{mail}?{sender}"]
        yield found


@contextmanager
def serving(server: BaseServer) -> Iterator[int]:
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_address[1])
        server.shutdown()


def registered(site: Site) -> tuple[list[str], list[str]]:
    """The automations that send messages, and the blocks that they send through."""
    automations = [a["name"] for a in site.api("POST", "automations/filter", {}) if a["name"] == AUTOMATION]
    blocks = [b["name"] for b in site.api("POST", "block_documents/filter", {}) if b["name"].startswith(BLOCKS)]
    return automations, blocks


def up(site: Site, *addresses: str) -> str:
    done = site.run(BIN / "autodidact", "up", **{ADDRESSES: " ".join(addresses)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_up_replaces_the_addresses_of_before(site: Site, received: Received):
    before = Notifications(("https://example.org/1", "https://example.org/2", "ntfy://three"), ("completed",))
    with (
        temporary_settings({PREFECT_API_URL: f"{site.prefect}/api", PREFECT_API_AUTH_STRING: site.key}),
        get_client(sync_client=True) as client,
    ):
        register_notifications(client, before)
    assert registered(site) == ([AUTOMATION], [f"{BLOCKS}{number}" for number in (1, 2, 3)])
    assert "Notified: 2 addresses (completed, failed, decision)." in up(site, *received.addresses)
    assert registered(site) == ([AUTOMATION], [f"{BLOCKS}{number}" for number in (1, 2)])
    shown = json.dumps([block["data"] for block in site.api("POST", "block_documents/filter", {})])
    assert "hush" not in shown and "127.0.0.1" not in shown


def test_each_end_and_each_decision_is_told_once_and_what_a_person_stopped_is_not(site: Site, received: Received):
    by_hand = site.api("POST", "flow_runs/", {"flow_id": site.api("GET", "flows/name/rest-em")["id"], "name": "mine"})
    site.api("POST", f"flow_runs/{by_hand['id']}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    cancelled, _, _ = hang(site, "told-cancelled")
    assert site.run(BIN / "prefect", "flow-run", "cancel", cancelled, **site.client).returncode == 0
    site.wait(cancelled, "Cancelled")
    failed = site.start(settings(site, "told-failed"), STUB_CRASH="iter-1/train")
    site.wait(failed, "Failed")
    again = {
        "state": {"type": "FAILED"},
        "force": True,
    }  # as from a client that was not answered while SQLite was locked
    site.api("POST", f"flow_runs/{failed}/set_state", again)
    decided = site.start(settings(site, "told", iterations=2, approve=True))
    site.wait(decided, "Suspended")
    site.api("POST", f"flow_runs/{decided}/resume", {"run_input": {"decision": "stop"}})
    site.wait(decided, "Completed")
    expected = [("told-failed", "Failed"), ("told", "Suspended"), ("told", "Completed")]
    eventually(lambda: received.states.total() >= 3 and len(received.mail) >= 3, lambda: f"{received} is not all")
    time.sleep(5)  # for one too many
    assert received.states == Counter(expected)
    (suspended,) = [message["text"] for message in received.web if "Suspended" in message["text"]]
    assert suspended.splitlines() == [
        *("Flow: rest-em", "Run: told", "State: Suspended"),
        "It waits for your decision: press Resume on its page.",
        f"{site.prefect}/runs/flow-run/{decided}",
    ]
    assert Counter(mail["subject"] for mail in received.mail) == Counter(f"rest-em {r}: {s}" for r, s in expected)
    assert {mail["to"] for mail in received.mail} == {"you@example.org"}
    assert {text.strip() for text in received_texts(received.mail)} == received_texts(received.web)


def received_texts(messages: list[dict[str, str]]) -> set[str]:
    return {"\n".join(message["text"].splitlines()) for message in messages}


def test_up_without_an_address_stops_the_messages(site: Site, received: Received):
    assert "Notified" not in up(site)
    assert registered(site) == ([], [])
