"""What the services refuse: pages of other origins, other names, and whoever does not have the key."""

import base64
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from data.errors import AutodidactError
from tasks.tracking.servers import reach_prefect
from tests.services.conftest import BIN, Site

FOREIGN = "http://stranger.example"
PATHS = {
    "prefect": ("/", "/docs", "/ui-settings", "/api/health", "/api/ready", "/api/admin/version", "/api/flows/filter"),
    "mlflow": (
        *(
            "/",
            "/health",
            "/version",
            "/static-files/index.html",
            "/graphql",
            "/get-artifact",
            "/gateway/mlflow/v1/models",
        ),
        *("/api/2.0/mlflow/experiments/search", "/ajax-api/2.0/mlflow/experiments/search", "/v1/traces"),
    ),
}


@pytest.mark.parametrize("server", PATHS)
def test_a_page_of_another_origin_and_a_foreign_name_get_nothing(site: Site, server: str):
    address, other = getattr(site, server), {"prefect": site.mlflow, "mlflow": site.prefect}[server]
    preflight = {"Origin": FOREIGN, "Access-Control-Request-Method": "POST"}
    image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    frame = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}
    with httpx.Client(base_url=address, auth=site.login, timeout=30) as client:
        for path in PATHS[server]:
            answers = {
                "read": client.get(path, headers={"Origin": FOREIGN}),
                "simple request": client.post(
                    path, headers={"Origin": FOREIGN, "Content-Type": "text/plain"}, content="{}"
                ),
                "sandboxed frame": client.post(path, headers={"Origin": "null"}, json={}),
                "page on another port": client.post(path, headers={"Origin": other}, json={}),
                "preflight": client.options(path, headers=preflight),
                "image": client.get(path, headers=image),
                "frame": client.get(path, headers=frame),
            }
            assert {what: a.status_code for what, a in answers.items()} == dict.fromkeys(
                answers, HTTPStatus.FORBIDDEN
            ), path
            assert not any("access-control-allow-origin" in answer.headers for answer in answers.values()), path
            assert client.get(path, headers={"Host": "stranger.example"}).status_code == HTTPStatus.BAD_REQUEST, path


@pytest.mark.parametrize("server", PATHS)
def test_a_link_on_any_page_opens_a_page_and_localhost_is_the_same_server(site: Site, server: str):
    address = getattr(site, server)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert httpx.get(address, headers=link, follow_redirects=True).is_success
    by_name = address.replace("127.0.0.1", "localhost")
    assert httpx.get(by_name, headers={"Origin": by_name}, follow_redirects=True).is_success


def test_a_page_cannot_start_a_program_on_the_worker(site: Site):
    proof = site.folder / "started-by-a-page"
    path = f"/api/deployments/{site.deployment('rest-em/stub')}/create_flow_run"
    attack = {"job_variables": {"command": f"touch {proof}"}, "state": {"type": "SCHEDULED"}}
    before = len(site.api("POST", "flow_runs/filter", {}))
    with httpx.Client(base_url=site.prefect, timeout=30) as page:
        for headers in ({"Origin": FOREIGN}, {"Origin": FOREIGN, "Content-Type": "text/plain"}, {}):
            answer = page.post(path, json=attack, headers=headers)
            assert answer.status_code == (HTTPStatus.FORBIDDEN if headers else HTTPStatus.UNAUTHORIZED)
        answer = page.post(path, json=attack, auth=("autodidact", "guessed"))
        assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert len(site.api("POST", "flow_runs/filter", {})) == before
    assert not proof.exists()


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_a_websocket_needs_the_key_and_is_refused_to_another_origin(site: Site, path: str):
    address = f"{site.prefect.replace('http', 'ws')}/api/{path}"
    told: dict[str, Any] = {"subprotocols": ["prefect"], "proxy": None}
    with pytest.raises(InvalidStatus, match="403"), connect(address, origin=FOREIGN, **told):
        pass
    with connect(address, **told) as socket:
        socket.send('{"type": "auth", "token": "autodidact:guessed"}')
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=30)
    with connect(address, origin=site.prefect, **told) as socket:
        socket.send(f'{{"type": "auth", "token": "{site.key}"}}')
        assert "auth_success" in str(socket.recv(timeout=30))


def test_the_key_is_its_owners_alone_and_is_kept(site: Site):
    file = site.runs / "services" / "prefect.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert site.autodidact("status", "--key").strip() == site.key
    logs = [path.read_text(errors="replace") for path in file.parent.glob("*.log")]
    assert logs
    for secret in (site.key, site.login[1], base64.b64encode(site.key.encode()).decode()):
        assert not any(secret in log for log in logs)


def test_commands_reach_the_services_past_a_proxy(site: Site):
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    done = site.run(BIN / "autodidact", "reconcile", **nowhere)
    assert done.returncode == 0, done.stderr


def test_a_wrong_key_ends_a_command_in_one_plain_message(site: Site):
    done = site.run(BIN / "autodidact", "reconcile", **site.client | {"PREFECT_API_AUTH_STRING": "autodidact:guessed"})
    assert done.returncode == 1
    assert "PREFECT_API_AUTH_STRING" in done.stderr and site.prefect in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("address", "said", "code"),
    [
        ("http://127.0.0.1:9/api", "cannot be reached", 1),
        ("nonsense", "is not an address", 2),
        ("{prefect}", "ends in /api", 1),
        ("{mlflow}/api", "ends in /api", 1),
    ],
)
def test_an_address_at_which_there_is_no_prefect_is_said_so(site: Site, address: str, said: str, code: int):
    address = address.format(prefect=site.prefect, mlflow=site.mlflow)
    with temporary_settings({PREFECT_API_URL: address}), pytest.raises(AutodidactError, match=said) as raised:
        reach_prefect()
    assert address in str(raised.value)
    assert raised.value.exit_code == code
