"""supervisord, which keeps the services alive: its addresses, how it is started, and the connection to it."""

import errno
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from xmlrpc.client import ServerProxy

from data.errors import RunFailedError, UsageError
from data.extras import require_extra
from deployments.notifications import ADDRESSES, OCCASIONS
from tasks.stage.environment import ARTIFACTS, KEY_VARIABLES, SQLITE, Services, cache_folder, key_file, read_key
from tasks.tracking.guard import own_origins
from tasks.tracking.mlflow import make_database
from tasks.tracking.prefect_server import new_key

DATABASE = "AUTODIDACT_DATABASE"
OUTER_ORIGINS = "AUTODIDACT_ALLOWED_ORIGINS"


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
        """The options that running services were started with."""
        if services is None:
            return None
        prefect, mlflow = urlsplit(services.prefect), urlsplit(services.mlflow)
        return cls(str(prefect.hostname), prefect.port or 0, mlflow.port or 0)

    @property
    def addresses(self) -> Services:
        return Services(f"http://{self.name}:{self.prefect_port}/api", f"http://{self.name}:{self.mlflow_port}")

    @property
    def name(self) -> str:
        """The host as written in addresses."""
        return f"[{self.host}]" if ":" in self.host else self.host


def connect(folder: Path) -> Any:
    """The running supervisord's interface, or None.

    Raises:
        ServiceError: its socket belongs to another user.
        UsageError: supervisord is not installed.
    """
    require_extra("supervisor", "Running the services")
    from supervisor.xmlrpc import SupervisorTransport

    path = _socket(folder)
    server: Any = ServerProxy("http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{path}"))
    try:
        owner = folder.stat().st_uid if folder.exists() else os.geteuid()
        if path.lstat().st_uid != owner:
            raise ServiceError(
                f"{path}, the control socket of {folder}, belongs to another user, not to the owner of that folder.",
                "In a shared temp folder, anybody can create a file of that name.",
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


def is_stopping(found: Any) -> bool:
    try:
        return found is not None and found.supervisor.getState()["statename"] == "SHUTDOWN"
    except OSError:
        return False


def _socket(folder: Path) -> Path:
    """The control socket. Socket paths hold only about a hundred characters, so it is not in the services' folder."""
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"autodidact-{name}.sock"


def launch(options: Options, folder: Path) -> None:
    """Start supervisord, with Prefect's and MLflow's servers.

    Raises:
        ServiceError: it does not start, or the folder cannot be written.
        UsageError: one of the user's environment variables cannot be used.
    """
    outer, databases = _outer_origins(), _databases(folder.parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        key = _keep_key(folder.parent)
        (folder / "services.json").write_text(json.dumps(asdict(options.addresses)))
    except OSError as error:
        raise ServiceError(
            f"{folder} cannot be written: {error.strerror}.",
            what_next="Make it writable for this user, then call `up` again.",
        ) from None
    environment = _environment(options, folder, key, outer) | databases
    make_database(environment["MLFLOW_BACKEND_STORE_URI"])
    supervisord, settings = Path(sys.executable).with_name("supervisord"), Path(__file__).with_name("supervisord.conf")
    # The last argument also identifies whose supervisord a process is.
    command = [str(supervisord), "--configuration", str(settings), "--pidfile", str(folder / "supervisord.pid")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(
            "supervisord does not start.",
            f"Its output: {(done.stdout + done.stderr).strip()}",
            "Fix that, then call `autodidact up` again.",
        )


def _keep_key(runs: Path) -> str:
    """The key of Prefect's server: the user's own, the previous one, or a new one. Its file is never open to others."""
    file = key_file(runs)
    key = os.environ.get(KEY_VARIABLES[0]) or read_key(runs) or new_key()
    handle, partial = tempfile.mkstemp(dir=file.parent)
    with os.fdopen(handle, "w") as opened:
        opened.write(f"{key}\n")
    os.replace(partial, file)
    return key


def _environment(options: Options, folder: Path, key: str, outer: list[str]) -> dict[str, str]:
    """The environment of supervisord and the services; `outer` are origins besides those of the address."""
    at = options.addresses
    prefect, mlflow = (
        [*own_origins(options.name, port), *outer] for port in (options.prefect_port, options.mlflow_port)
    )
    names = [urlsplit(origin).netloc for origin in mlflow]
    # MLflow also checks names, and refuses those it does not know. What the user has set stays.
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
        # The same place as for runs without a server, so a run can continue with or without one.
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (folder.parent / ARTIFACTS).as_uri(),
        "MLFLOW_SERVE_ARTIFACTS": "false",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": at.mlflow,
        "PREFECT_API_URL": at.prefect,
        "PYTHONSAFEPATH": "1",  # flows run in a user's folder, which may contain a data.py
        "PYTHONUNBUFFERED": "1",
    }
    inherited = {name: value for name, value in os.environ.items() if name not in (ADDRESSES, OCCASIONS)}
    return checks | inherited | own | dict.fromkeys(KEY_VARIABLES, key)


def _outer_origins() -> list[str]:
    """Other origins at which browsers see the pages, such as those of a reverse proxy.

    Raises:
        UsageError: one is not an origin.
    """
    origins = [given.strip() for given in os.environ.get(OUTER_ORIGINS, "").split(",") if given.strip()]
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}" or "*" in origin:
            raise UsageError(
                f"{origin!r} in {OUTER_ORIGINS} is not an origin.",
                what_next="Write origins like https://prefect.example.org, without a path, separated by commas.",
            )
    return origins


def _databases(runs: Path) -> dict[str, str]:
    """Where the servers keep their data: SQLite files in the runs folder, or `AUTODIDACT_DATABASE`.

    The latter is postgresql://user:password@host:port, with the databases `prefect` and `mlflow`.
    """
    server = os.environ.get(DATABASE)
    if not server:
        return {"MLFLOW_BACKEND_STORE_URI": f"sqlite:///{runs / SQLITE}"}
    if not server.startswith("postgresql://"):
        raise UsageError(f"{DATABASE} must start with postgresql://.", what_next="Unset it to use SQLite files.")
    require_extra("psycopg2", f"{DATABASE} with PostgreSQL")
    base = server.removeprefix("postgresql://").rstrip("/")
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{base}/prefect",
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg2://{base}/mlflow",
    }


def refuse_taken_ports(options: Options) -> None:
    for port, name, flag in ((options.prefect_port, "Prefect", "prefect"), (options.mlflow_port, "MLflow", "mlflow")):
        refuse_taken_port(options.host, port, name, f"--{flag}-port")


def refuse_taken_port(host: str, port: int, name: str, flag: str) -> None:
    """Check that a program could listen at an address.

    Raises:
        UsageError: the host is not this machine's.
        ServiceError: the port is taken, or may not be used.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, UnicodeError) as error:
        unknown = isinstance(error, socket.gaierror | UnicodeError)
        if unknown or (isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL):
            raise UsageError(
                f"--host {host} is not an address of this machine.",
                what_next="Give one of its addresses; `ip address` lists them.",
            ) from None
        raise ServiceError(
            f"Port {port} on {host}, which {name} needs, cannot be used.",
            f"{error.strerror}." if isinstance(error, OSError) else "",
            f"Stop the program that uses it, or choose another port with {flag}.",
        ) from None
