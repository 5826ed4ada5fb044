"""`autodidact up | down | status`: Prefect server, MLflow server and worker on one machine, kept alive by supervisord.

Everything they keep lies in `runs`, in the folder where they were started. They listen on the loopback address and
answer no other origin's pages; Prefect, which can start programs, asks for a key.
"""

import argparse
import base64
import contextlib
import errno
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
from typing import Any, NoReturn, Self
from urllib.parse import urlsplit
from xmlrpc.client import Fault, ServerProxy

import psutil

from data.errors import AutodidactError, RunFailedError
from tasks.environment import (
    KEY_VARIABLES,
    Services,
    bypass_proxies,
    cache_folder,
    key_file,
    prepare,
    read_key,
    running_services,
    services_folder,
)
from tasks.guard import own_origins
from tasks.prefect_server import new_key
from tasks.reconcile import reconcile
from tasks.tracking import make_database

START_SECONDS = 180
STOP_SECONDS = 90
DATABASE = "AUTODIDACT_DATABASE"
OUTER_ORIGINS = "AUTODIDACT_ALLOWED_ORIGINS"
RUNS = Path("runs")


class ServiceError(RunFailedError):
    """The services cannot be started or stopped."""


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
        return Services(f"http://{self.name}:{self.prefect_port}/api", f"http://{self.name}:{self.mlflow_port}")

    @property
    def name(self) -> str:
        """The host as it stands in addresses."""
        return f"[{self.host}]" if ":" in self.host else self.host


def up(arguments: Sequence[str]) -> int:
    """Start what does not run yet, wait until it is healthy, register deployments, print the addresses."""
    parser = _parser("up", up.__doc__)
    # What runs already stays where it is.
    at = Options.of(running_services(RUNS)) or Options()
    parser.add_argument("--host", default=at.host, help="address to listen on (default: loopback)")
    parser.add_argument("--prefect-port", type=_port, default=at.prefect_port)
    parser.add_argument("--mlflow-port", type=_port, default=at.mlflow_port)
    parser.add_argument(
        "--gpus", type=int, help="slots of the concurrency limit `gpu`; by default all this machine has"
    )
    told = parser.parse_args(arguments)
    from tasks.devices import count_gpus

    gpus = count_gpus() if told.gpus is None else told.gpus
    options = Options(told.host, told.prefect_port, told.mlflow_port, gpus)
    _refuse(options)
    return start(options)


def down(arguments: Sequence[str]) -> int:
    """Stop exactly what `autodidact up` started. Flows under way are stopped as if cancelled; they can be resumed."""
    _parser("down", down.__doc__).parse_args(arguments)
    return stop()


def status(arguments: Sequence[str]) -> int:
    """Show which services run, and where."""
    parser = _parser("status", status.__doc__)
    parser.add_argument("--key", action="store_true", help="print the key of Prefect's server, and nothing else")
    return show_key() if parser.parse_args(arguments).key else show()


def start(options: Options) -> int:
    """Bring everything up, or complete what is up already.

    Raises:
        ServiceError: a port is taken, or a service does not become healthy; with the end of its log.
        AutodidactError: the host is not this machine's, or the folder cannot be written.
    """
    prepare(RUNS)
    bypass_proxies(options.host)
    folder = services_folder(RUNS)
    _wait(lambda: not _is_stopping(connect(folder)), "the end of the services before", folder / "supervisord.log")
    found = connect(folder)
    if found is None:
        _refuse_taken_ports(options)
        _launch(options, folder)
        found = _wait(lambda: connect(folder), "supervisord", folder / "supervisord.log")
    elif (running := running_services(RUNS)) and running != options.addresses:
        raise ServiceError(
            f"The services of {RUNS.absolute()} run already at {running.prefect} and {running.mlflow}.",
            what_next="Stop them first (autodidact down), or leave out the address.",
        )
    for program in ("prefect", "mlflow"):
        _start_program(found, program)
    at = options.addresses
    _wait(lambda: _answers(f"{at.prefect}/health"), "Prefect", folder / "prefect.log")
    _wait(lambda: _answers(f"{at.mlflow}/health"), "MLflow", folder / "mlflow.log")
    _register(options, folder)
    _start_program(found, "worker")
    _wait(lambda: _worker_is_online(at), "the worker", folder / "worker.log")
    print(f"Prefect  {at.prefect.removesuffix('/api')}  (asks once for the key that `autodidact status --key` prints)")
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
    if services := running_services(RUNS):  # whatever servers the environment names
        os.environ.update(PREFECT_API_URL=services.prefect, MLFLOW_TRACKING_URI=services.mlflow)
        os.environ["PREFECT_API_AUTH_STRING"] = read_key(RUNS) or ""
    prepare(RUNS)
    with contextlib.suppress(Fault):
        found.supervisor.stopProcess("worker")
    try:
        for closed in reconcile(RUNS, grace=timedelta()):
            print(closed)
    except AutodidactError as error:  # a server that does not answer has to be stopped all the same
        print(f"autodidact: {error}", file=sys.stderr)
    supervisord = psutil.Process(found.supervisor.getPID())
    ours = [supervisord, *supervisord.children(recursive=True)]
    found.supervisor.shutdown()
    _, alive = psutil.wait_procs(ours, timeout=STOP_SECONDS)
    if alive:
        pids = " ".join(str(process.pid) for process in alive)
        raise ServiceError(f"Still running after {STOP_SECONDS} s: {pids}.", what_next=f"End them: kill -KILL {pids}")
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


def show_key() -> int:
    """Print the key of Prefect's server, whether it runs or not.

    Raises:
        ServiceError: there is none, or it is another user's.
    """
    if (key := read_key(RUNS)) is None:
        raise ServiceError(
            f"There is no key in {key_file(RUNS)} that this user may read.",
            "`autodidact up` makes it, for the user who calls it.",
            "Call this in the folder where `up` was called, as the same user.",
        )
    print(key)
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise AutodidactError(f"{message}.", what_next=f"See {self.prog} --help.")


def _parser(name: str, description: str | None) -> argparse.ArgumentParser:
    return _Parser(prog=f"autodidact {name}", description=description, allow_abbrev=False)


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 2**16:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port; ports are numbers from 1 to 65535")


def _refuse(options: Options) -> None:
    if options.host in ("0.0.0.0", "::"):
        raise AutodidactError(
            f"--host {options.host} stands for all addresses, and browsers and workers are told one.",
            what_next="Give the address by which they reach this machine.",
        )
    if options.prefect_port == options.mlflow_port:
        raise AutodidactError(
            f"Prefect and MLflow cannot both listen on port {options.prefect_port}.",
            what_next="Choose another with --prefect-port or --mlflow-port.",
        )


def connect(folder: Path) -> Any:
    """The running supervisord's interface, or None.

    Raises:
        ServiceError: its socket is another user's.
    """
    from supervisor.xmlrpc import SupervisorTransport

    path = _socket(folder)
    server: Any = ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{path}"))
    try:
        owner = folder.stat().st_uid if folder.exists() else os.geteuid()
        if path.lstat().st_uid != owner:
            raise ServiceError(
                f"{path}, by which the services of {folder} are spoken to, belongs to another user than that folder.",
                "In a temp folder that is shared, anybody can make a file of that name.",
                "Have it removed, then run the same command again.",
            )
        server.supervisor.getState()
    except PermissionError:
        raise ServiceError(
            f"The services of {folder} belong to another user.", what_next="Run the same command as that user."
        ) from None
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _keep_key()
        (folder / "services.json").write_text(json.dumps(asdict(options.addresses)))
    except OSError as error:
        raise ServiceError(
            f"{folder} cannot be written: {error.strerror}.", what_next="Let this user write there, then call up again."
        ) from None
    environment = _environment(options, folder, key)
    make_database(environment["MLFLOW_BACKEND_STORE_URI"])
    command = [
        *(
            Path(sys.executable).with_name("supervisord"),
            "--configuration",
            Path(__file__).with_name("supervisord.conf"),
        ),
        *("--pidfile", folder / "supervisord.pid"),  # which also tells whose supervisord a process is
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError("supervisord does not start.", f"It says: {(done.stdout + done.stderr).strip()}")


def _keep_key() -> str:
    """The key of Prefect's server: the user's own, that of before, or a new one. Its file was never open to others."""
    file = key_file(RUNS)
    key = next(filter(None, map(os.environ.get, KEY_VARIABLES)), None) or read_key(RUNS) or new_key()
    partial = file.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(f"{key}\n")
    partial.replace(file)
    return key


def _environment(options: Options, folder: Path, key: str) -> dict[str, str]:
    """What supervisord and the services are started with."""
    at, outer = options.addresses, _outer_origins()
    prefect, mlflow = (
        [*own_origins(options.name, port), *outer] for port in (options.prefect_port, options.mlflow_port)
    )
    names = [urlsplit(origin).netloc for origin in mlflow]
    # MLflow checks names as well, and refuses what it is not told. What the user has set stays.
    checks = {"MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names), "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(mlflow)}
    own = {
        "AUTODIDACT_BIN": str(Path(sys.executable).parent),
        "AUTODIDACT_CACHE": str(cache_folder()),
        "AUTODIDACT_HOST": options.host,
        "AUTODIDACT_MLFLOW_ORIGINS": ",".join(mlflow),
        "AUTODIDACT_MLFLOW_PORT": str(options.mlflow_port),
        "AUTODIDACT_PREFECT_ORIGINS": ",".join(prefect),
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
    }
    return checks | dict(os.environ) | own | dict.fromkeys(KEY_VARIABLES, key) | _databases(folder.parent)


def _outer_origins() -> list[str]:
    """Under which other origins the pages are seen: those that a reverse proxy shows them under.

    Raises:
        AutodidactError: one is no origin.
    """
    origins = [given.strip() for given in os.environ.get(OUTER_ORIGINS, "").split(",") if given.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
            raise AutodidactError(
                f"{origin!r} in {OUTER_ORIGINS} is no origin.",
                what_next="Write them as https://prefect.example.org, without a path, separated by commas.",
            )
    return origins


def _databases(runs: Path) -> dict[str, str]:
    """Where the servers keep their data: SQLite files in the runs folder, or `AUTODIDACT_DATABASE`.

    That is postgresql://user:password@host:port; it has the databases `prefect` and `mlflow`.
    """
    server = os.environ.get(DATABASE)
    if not server:
        return {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{runs / 'mlflow.db'}"}
    if not server.startswith("postgresql://"):
        raise AutodidactError(f"{DATABASE} has to start with postgresql://.", what_next="Unset it to use SQLite files.")
    base = server.removeprefix("postgresql://").rstrip("/")
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{base}/prefect",
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{base}/mlflow",
    }


def _refuse_taken_ports(options: Options) -> None:
    for port, name, flag in ((options.prefect_port, "Prefect", "prefect"), (options.mlflow_port, "MLflow", "mlflow")):
        try:
            family, kind, _, _, address = socket.getaddrinfo(options.host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except (OSError, UnicodeError) as error:
            unknown = isinstance(error, socket.gaierror | UnicodeError)
            if unknown or (isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL):
                raise AutodidactError(
                    f"--host {options.host} is no address of this machine.",
                    what_next="Give one of its own; `ip address` lists them.",
                ) from None
            raise ServiceError(
                f"Port {port} on {options.host}, which {name} is to listen on, cannot be taken.",
                f"{error.strerror}." if isinstance(error, OSError) else "",
                f"Stop what uses it, or choose another with --{flag}-port.",
            ) from None


def _start_program(found: Any, name: str) -> None:
    with contextlib.suppress(Fault):  # it runs already
        found.supervisor.startProcess(name, False)


def _register(options: Options, folder: Path) -> None:
    """Register pool, limits, automations and deployments, in a process that has the server's address from its start."""
    at = options.addresses
    key = {"PREFECT_API_AUTH_STRING": read_key(RUNS) or ""}
    environment = dict(os.environ) | key | {"PREFECT_API_URL": at.prefect, "PWD": str(Path.cwd())}
    command = [sys.executable, "-m", "deployments.register", str(options.gpus)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (folder / "register.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServiceError("The deployments could not be registered.", f"The end of the log:\n{lines}")


def _worker_is_online(at: Services) -> bool:
    headers = {
        "Authorization": f"Basic {base64.b64encode((read_key(RUNS) or '').encode()).decode()}",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"{at.prefect}/work_pools/autodidact/workers/filter", b"{}", headers)
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
            raise ServiceError(f"{name} is not up after {START_SECONDS} s.", f"The end of {log}:\n{end}")
        time.sleep(0.25)
    return found
