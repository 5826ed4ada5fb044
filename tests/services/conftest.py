"""Tests with the real services: Prefect server, worker and MLflow server, started as a user starts them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Site:
    """A folder with services of its own."""

    folder: Path
    prefect: str
    mlflow: str

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
        own = {"AUTODIDACT_CACHE": str(self.folder / "cache"), "HOME": str(self.folder / "home")}
        return kept | own | {"PYTHONPATH": str(ROOT), "PWD": str(self.folder)}

    def autodidact(self, *arguments: str, code: int = 0) -> str:
        """Run a command in the folder; return what it printed."""
        done = self.run(BIN / "autodidact", *arguments)
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    def run(self, *command: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment | environment, capture_output=True, text=True, check=False
        )

    def up(self) -> str:
        ports = self.prefect.rsplit(":")[-1], self.mlflow.rsplit(":")[-1]
        return self.autodidact("up", "--prefect-port", ports[0], "--mlflow-port", ports[1])

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Prefect's API."""
        deadline = time.monotonic() + 60
        while True:
            answer = httpx.request(method, f"{self.prefect}/api/{path}", json=body, timeout=30)
            # 503 is how Prefect says that its SQLite file was locked; its own client tries again as well.
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> str:
        return str(self.api("GET", f"deployments/name/{name}")["id"])

    def start(self, config: dict[str, Any], name: str = "rest-em/stub", **variables: str) -> str:
        """Start a flow run from a deployment; return its id."""
        body = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}, "job_variables": {"env": variables}}
        return str(self.api("POST", f"deployments/{self.deployment(name)}/create_flow_run", body)["id"])

    def state(self, flow_run: str) -> str:
        return str(self.api("GET", f"flow_runs/{flow_run}")["state"]["name"])

    def wait(self, flow_run: str, *states: str, seconds: float = 120) -> None:
        eventually(lambda: self.state(flow_run) in states, seconds, lambda: f"{self.state(flow_run)}, not {states}")


def eventually(holds: Callable[[], Any], seconds: float, message: Callable[[], str] | str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, message if isinstance(message, str) else message()
        time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Services in a folder of their own, with a deployment on the stub programs."""
    site = Site(tmp_path_factory.mktemp("site"), f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    (site.folder / "home").mkdir()
    site.up()
    deploy = ["--no-prompt", "deploy", "--all", "--prefect-file", ROOT / "tests" / "services" / "prefect.yaml"]
    done = site.run(BIN / "prefect", *deploy, PREFECT_API_URL=f"{site.prefect}/api")
    assert done.returncode == 0, done.stdout + done.stderr
    yield site
    site.autodidact("down")
