"""`autodidact up | down | status`: Prefect server, MLflow server and worker on one machine, kept alive by supervisord.

Everything they keep lies in `runs`, in the folder where they were started. They listen on the loopback address:
neither has a login of its own.
"""

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from xmlrpc.client import Fault, ServerProxy

import psutil

from tasks.environment import Services, cache_folder, prepare, running_services, services_folder
from tasks.reconcile import reconcile
from tasks.tracking import HistoryError, make_database

START_SECONDS = 180
STOP_SECONDS = 90
DATABASE = "AUTODIDACT_DATABASE"
RUNS = Path("runs")


class ServiceError(RuntimeError):
    """The services cannot be started or stopped; the message says why and what to do."""


@dataclass(frozen=True)
class Options:
    """Where the services listen and keep their data."""

    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    gpus: int = 0

    @classmethod
    def of(cls, services: Services | None) -> Self | None:
        """The options with which running services were started."""
        if services is None:
            return None
        prefect, mlflow = urlsplit(services.prefect), urlsplit(services.mlflow)
        return cls(str(prefect.hostname), prefect.port or 0, mlflow.port or 0)

    @property
    def addresses(self) -> Services:
        return Services(f"http://{self.host}:{self.prefect_port}/api", f"http://{self.host}:{self.mlflow_port}")


def up(arguments: Sequence[str]) -> int:
    """Start what does not run yet, wait until it is healthy, register deployments, print the addresses."""
    parser = _parser("up", up.__doc__)
    # What runs already stays where it is.
    at = Options.of(running_services(RUNS)) or Options()
    parser.add_argument("--host", default=at.host, help="address to listen on (default: loopback)")
    parser.add_argument("--prefect-port", type=int, default=at.prefect_port)
    parser.add_argument("--mlflow-port", type=int, default=at.mlflow_port)
    parser.add_argument(
        "--gpus", type=int, help="slots of the concurrency limit `gpu`; by default all this machine has"
    )
    told = parser.parse_args(arguments)
    from tasks.devices import count_gpus

    if told.host == "0.0.0.0":
        parser.error("--host 0.0.0.0 cannot be told to browsers and workers. Give the address by which they reach it.")
    gpus = count_gpus() if told.gpus is None else told.gpus
    options = Options(told.host, told.prefect_port, told.mlflow_port, gpus)
    return _reported(lambda: start(options))


def down(arguments: Sequence[str]) -> int:
    """Stop exactly what `autodidact up` started. Flows under way are stopped as if cancelled; they can be resumed."""
    _parser("down", down.__doc__).parse_args(arguments)
    return _reported(stop)


def status(arguments: Sequence[str]) -> int:
    """Show which services run, and where."""
    _parser("status", status.__doc__).parse_args(arguments)
    return _reported(show)


def start(options: Options) -> int:
    """Bring everything up, or complete what is up already.

    Raises:
        ServiceError: a port is taken, or a service does not become healthy; with the end of its log.
    """
    prepare(RUNS)
    folder = services_folder(RUNS)
    _wait(lambda: not _is_stopping(connect(folder)), "the end of the services before", folder / "supervisord.log")
    found = connect(folder)
    if found is None:
        _refuse_taken_ports(options)
        _launch(options, folder)
        found = _wait(lambda: connect(folder), "supervisord", folder / "supervisord.log")
    elif (running := running_services(RUNS)) and running != options.addresses:
        raise ServiceError(
            f"The services of {RUNS.absolute()} run already at {running.prefect} and {running.mlflow}. "
            f"Stop them first (autodidact down), or leave out the address."
        )
    for program in ("prefect", "mlflow"):
        _start_program(found, program)
    at = options.addresses
    _wait(lambda: _answers(f"{at.prefect}/health"), "Prefect", folder / "prefect.log")
    _wait(lambda: _answers(f"{at.mlflow}/health"), "MLflow", folder / "mlflow.log")
    _register(options, folder)
    _start_program(found, "worker")
    _wait(lambda: _worker_is_online(at), "the worker", folder / "worker.log")
    print(f"Prefect  {at.prefect.removesuffix('/api')}")
    print(f"MLflow   {at.mlflow}")
    print(f"Data and logs are in {folder.parent} and {folder}; `autodidact down` stops the services.")
    return 0


def stop() -> int:
    """Stop the services of this folder: the worker first, so that the history can be told how its flows ended.

    Raises:
        ServiceError: they do not end.
    """
    folder = services_folder(RUNS)
    found = connect(folder)
    if found is None:
        print(f"No services of {RUNS.absolute()} are running.")
        return 0
    prepare(RUNS)
    with contextlib.suppress(Fault):
        found.supervisor.stopProcess("worker")
    try:
        for closed in reconcile(RUNS, grace=timedelta()):
            print(closed)
    except HistoryError as error:  # a server that does not answer has to be stopped all the same
        print(f"autodidact: {error}", file=sys.stderr)
    supervisord = psutil.Process(int((folder / "supervisord.pid").read_text()))
    ours = [supervisord, *supervisord.children(recursive=True)]
    found.supervisor.shutdown()
    _, alive = psutil.wait_procs(ours, timeout=STOP_SECONDS)
    if alive:
        raise ServiceError(f"Still running after {STOP_SECONDS} s: {', '.join(str(p.pid) for p in alive)}. Kill them.")
    (folder / "services.json").unlink(missing_ok=True)
    print(f"The services of {RUNS.absolute()} are stopped; their history is kept.")
    return 0


def show() -> int:
    """Print the state of each service. Returns 0 where all run, else 1."""
    folder = services_folder(RUNS)
    found, at = connect(folder), running_services(RUNS)
    if found is None or at is None:
        print(f"No services of {RUNS.absolute()} are running. `autodidact up` starts them.")
        return 1
    states: Any = found.supervisor.getAllProcessInfo()
    where = {"prefect": at.prefect.removesuffix("/api"), "mlflow": at.mlflow, "worker": ""}
    for state in sorted(states, key=lambda s: list(where).index(s["name"])):
        print(f"{state['name']:<8} {state['statename']:<10} {where[state['name']]:<24} {state['description']}")
    return 0 if all(state["statename"] == "RUNNING" for state in states) else 1


def _parser(name: str, description: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"autodidact {name}", description=description)


def _reported(action: Callable[[], int]) -> int:
    try:
        return action()
    except ServiceError as error:
        print(f"autodidact: {error}", file=sys.stderr)
        return 1


def connect(folder: Path) -> Any:
    """The running supervisord's interface, or None."""
    from supervisor.xmlrpc import SupervisorTransport

    server: Any = ServerProxy(
        "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{_socket(folder)}")
    )
    try:
        server.supervisor.getState()
    except OSError:
        return None
    return server


def _is_stopping(found: Any) -> bool:
    try:
        return found is not None and found.supervisor.getState()["statename"] == "SHUTDOWN"
    except OSError:
        return False


def _socket(folder: Path) -> Path:
    """A socket's path may have some hundred characters only, so it does not lie in the services' folder."""
    import hashlib
    import tempfile

    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"autodidact-{name}.sock"


def _launch(options: Options, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    at, binaries = options.addresses, Path(sys.executable).parent
    (folder / "services.json").write_text(json.dumps(asdict(at)))
    # MLflow answers requests from other machines only under the names that it is told.
    names = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{options.host}:*,localhost:*,127.0.0.1:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": at.mlflow,
    }
    environment = (
        names
        | dict(os.environ)
        | {
            "AUTODIDACT_BIN": str(binaries),
            "AUTODIDACT_CACHE": str(cache_folder()),
            "AUTODIDACT_HOST": options.host,
            "AUTODIDACT_MLFLOW_PORT": str(options.mlflow_port),
            "AUTODIDACT_PREFECT_PORT": str(options.prefect_port),
            "AUTODIDACT_SERVICES": str(folder),
            "AUTODIDACT_SOCKET": str(_socket(folder)),
            # Where runs without a server put them too: what was begun with the one can go on with the other.
            "MLFLOW_DEFAULT_ARTIFACT_ROOT": (folder.parent / "mlflow-artifacts").as_uri(),
            "MLFLOW_SERVE_ARTIFACTS": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_TRACKING_URI": at.mlflow,
            "PREFECT_API_URL": at.prefect,
            "PYTHONUNBUFFERED": "1",
            **_databases(folder.parent),
        }
    )
    make_database(environment["MLFLOW_BACKEND_STORE_URI"])
    configuration = Path(__file__).with_name("supervisord.conf")
    command = [str(binaries / "supervisord"), "--configuration", str(configuration)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"supervisord does not start: {done.stdout}{done.stderr}")


def _databases(runs: Path) -> dict[str, str]:
    """Where the servers keep their data: SQLite files in the runs folder, or `AUTODIDACT_DATABASE`.

    That is postgresql://user:password@host:port; it has the databases `prefect` and `mlflow`.
    """
    server = os.environ.get(DATABASE)
    if not server:
        return {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{runs / 'mlflow.db'}"}
    if not server.startswith("postgresql://"):
        raise ServiceError(f"{DATABASE} has to start with postgresql://. Unset it to use SQLite files.")
    base = server.removeprefix("postgresql://").rstrip("/")
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{base}/prefect",
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{base}/mlflow",
    }


def _refuse_taken_ports(options: Options) -> None:
    for port, name, flag in ((options.prefect_port, "Prefect", "prefect"), (options.mlflow_port, "MLflow", "mlflow")):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host, port))
            except OSError as error:
                raise ServiceError(
                    f"Port {port} on {options.host}, which {name} is to listen on, cannot be taken ({error.strerror}). "
                    f"Stop what uses it, or choose another with --{flag}-port."
                ) from None


def _start_program(found: Any, name: str) -> None:
    with contextlib.suppress(Fault):  # it runs already
        found.supervisor.startProcess(name, False)


def _register(options: Options, folder: Path) -> None:
    """Register pool, limits, automations and deployments, in a process that has the server's address from its start."""
    at = options.addresses
    environment = dict(os.environ) | {"PREFECT_API_URL": at.prefect, "PWD": str(Path.cwd())}
    command = [sys.executable, "-m", "deployments.register", str(options.gpus)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (folder / "register.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServiceError(f"The deployments could not be registered:\n{lines}")


def _worker_is_online(at: Services) -> bool:
    request = urllib.request.Request(
        f"{at.prefect}/work_pools/autodidact/workers/filter", b"{}", {"Content-Type": "application/json"}
    )
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return any(worker["status"] == "ONLINE" for worker in json.load(answer))
    return False


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _wait(ready: Callable[[], Any], name: str, log: Path) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while not (found := ready()):
        if time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else "(nothing)"
            raise ServiceError(f"{name} is not up after {START_SECONDS} s. The end of {log}:\n{end}")
        time.sleep(0.25)
    return found
