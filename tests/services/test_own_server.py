"""The Prefect server that a run without services starts for itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.services.conftest import ROOT
from tests.waiting import PATIENCE, eventually

# What a command does before its flow; then it runs one, and waits.
PROGRAM = """
import time
from pathlib import Path
from tasks.stage.environment import prepare
prepare(Path("runs"))
from prefect import flow
from prefect.client.orchestration import get_client
from tasks.tracking.servers import reach_servers
reach_servers(Path("runs"))
flow(lambda: None, name="seen")()
with get_client(sync_client=True) as client:
    assert [run.state.name for run in client.read_flow_runs()] == ["Completed"]
    Path("address").write_text(str(client.api_url))
time.sleep(3600)
"""


def test_it_answers_its_own_run_alone_past_a_proxy_and_ends_with_it(tmp_path: Path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    own = {"AUTODIDACT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "http_proxy": "http://127.0.0.1:9"}
    run = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=kept | own)
    address = tmp_path / "address"

    def there() -> bool:
        assert run.poll() is None
        return address.exists() and address.read_text() != ""

    try:
        eventually(there, "the flow did not run")
        path = f"{address.read_text().rstrip('/')}/flow_runs/filter"
        assert httpx.post(path, json={}).status_code == httpx.codes.UNAUTHORIZED
        assert httpx.post(path, json={}, headers={"Origin": "http://stranger.example"}).status_code == 403
        assert httpx.post(path, json={}, headers={"Host": "stranger.example"}).status_code == 400
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()

    def gone() -> bool:
        try:
            httpx.get(path)
        except httpx.TransportError:
            return True
        return False

    eventually(gone, "the server outlived its run", seconds=60)


# Two of these at the same time, in a folder without a database.
START = """
from pathlib import Path
from tasks.stage.environment import prepare
prepare(Path("runs"))
from tasks.tracking.servers import reach_servers
reach_servers(Path("runs"))
"""


def test_two_that_start_at_once_do_not_collide_over_a_new_database(tmp_path: Path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    own = {"AUTODIDACT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START]
    starts = [
        subprocess.Popen(
            command, cwd=tmp_path, env=kept | own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    said = [start.communicate(timeout=PATIENCE)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0], said
    assert "Traceback" not in said[0] + said[1]
