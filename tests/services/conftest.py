"""Tests with the real services: Prefect server, worker and MLflow server, started as a user starts them."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from mlflow import MlflowClient

from flows import rest_em
from tasks.loop.loop import run_loop
from tasks.stage.contract import OnDrift
from tests.flows.conftest import make_config, prepared, small
from tests.flows.test_rest_em import digests
from tests.waiting import PATIENCE, eventually

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

    @property
    def key(self) -> str:
        return (self.runs / "services" / "prefect.key").read_text().strip()

    @property
    def login(self) -> tuple[str, str]:
        user, _, password = self.key.partition(":")
        return user, password

    @property
    def client(self) -> dict[str, str]:
        """What plain `prefect` commands need to know."""
        return {"PREFECT_API_URL": f"{self.prefect}/api", "PREFECT_API_AUTH_STRING": self.key}

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

    def answers(self) -> bool:
        """Whether Prefect's server is there."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.prefect}/api/health", timeout=5).is_success
        return False

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Call Prefect's API."""
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = httpx.request(method, f"{self.prefect}/api/{path}", json=body, timeout=90, auth=self.login)
            # 503 is how Prefect says, after 60 s, that its SQLite file was locked; its own client tries again as well.
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

    def wait(self, flow_run: str, *states: str) -> None:
        """Wait until a flow run is in one of the states, or can come into none: Crashed may still become Cancelled."""
        over = {*states, "Completed", "Failed"}
        eventually(lambda: self.state(flow_run) in over, lambda: f"{self.state(flow_run)}, not {states}", pause=0.5)
        assert self.state(flow_run) in states


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
    done = site.run(BIN / "prefect", *deploy, **site.client)
    assert done.returncode == 0, done.stdout + done.stderr
    yield site
    site.autodidact("down")


def settings(site: Site, run: str, **changes: Any) -> dict[str, Any]:
    """A ReST-EM run of one iteration on a hundred problems, as a form would hand it over."""
    return small(site.folder) | {"run": run, "runs_dir": str(site.runs), "iterations": 1} | changes


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    config = make_config(folder, iterations=1)
    with prepared(folder / "cache"):
        run_loop("ReST-EM", rest_em.loop, config, OnDrift.REFUSE)
    return digests(config)


def hang(site: Site, run: str, **variables: str) -> tuple[str, int, int]:
    """Start a flow run that hangs in training: its id, its process, and the hanging program."""
    started = site.folder / f"started-{run}"
    flow_run = site.start(settings(site, run), STUB_HANG="iter-1/train", STUB_STARTED=str(started), **variables)
    eventually(lambda: started.exists() and started.read_text(), lambda: f"{run} is {site.state(flow_run)}")
    program = int(started.read_text())
    flow = next(p for p in psutil.Process(program).parents() if "prefect.engine" in p.cmdline())
    return flow_run, flow.pid, program


def history(site: Site, run: str) -> list[Any]:
    """MLflow's runs of a run and of its iterations."""
    client = MlflowClient(site.mlflow)
    experiment = client.get_experiment_by_name("ReST-EM")
    assert experiment is not None
    return [r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name.split("/")[0] == run]


def statuses(site: Site, run: str) -> dict[str, str]:
    """MLflow's status of a run and of its iterations, by name."""
    return {r.info.run_name: r.info.status for r in history(site, run)}


def resumed(site: Site, run: str, undisturbed: dict[str, str]) -> None:
    """The same run, started again, ends with the digests of one that was left alone, and a whole history."""
    site.wait(site.start(settings(site, run)), "Completed")
    assert digests(make_config(site.folder, run=run)) == undisturbed
    assert statuses(site, run) == dict.fromkeys((run, f"{run}/iteration-0", f"{run}/iteration-1"), "FINISHED")


def listener(address: str) -> int:
    """The process that listens at an address, on the loopback interface alone."""
    port = int(address.rsplit(":", 1)[1])
    found = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port]
    assert {c.laddr.ip for c in found} == {"127.0.0.1"}
    assert found[0].pid is not None
    return found[0].pid
