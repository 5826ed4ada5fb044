"""Where libraries may write. Every cache and state folder is in the cache folder or the runs folder.

Nothing is written outside the working directory, the cache folder and the system's temp folder. Variables that the
user has set are left alone; only the no-proxy lists are extended.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from data.errors import AutodidactError

# Files and folders of Prefect, the services and MLflow in the folder of runs.
PREFECT, SERVICES, SQLITE, ARTIFACTS = "prefect", "services", "mlflow.db", "mlflow-artifacts"

# Heartbeat interval of a flow run; Prefect's minimum.
HEARTBEAT_SECONDS = 30

# Spinning threads, or threads bound to a busy core, make vLLM ten times slower on a shared CPU.
SHARED_CPU = {"OMP_WAIT_POLICY": "PASSIVE", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


# Where Prefect's server and its clients look for the key.
KEY_VARIABLES = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")

NO_PROXY = ("no_proxy", "NO_PROXY")  # libraries read one or the other

# Format of a line in a flow's log; a stage's lines begin with its name.
LINE = "%(asctime)s | %(levelname)-7s | {}"

# A stage's programs need no orchestration, and model-written code may run in them: they get neither key nor address.
ORCHESTRATION = ("PREFECT_", "MLFLOW_", "AUTODIDACT_DATABASE", "AUTODIDACT_NOTIFY")


@dataclass(frozen=True)
class Services:
    """Addresses of the Prefect server's API and of the MLflow server."""

    prefect: str
    mlflow: str


def services_folder(runs: Path) -> Path:
    """The folder with the logs and addresses of a runs folder's services."""
    return runs.absolute() / SERVICES


def key_file(runs: Path) -> Path:
    """The file with the key of a runs folder's Prefect server. Only its owner may read it."""
    return services_folder(runs) / "prefect.key"


def read_key(runs: Path) -> str | None:
    """Read the key of a runs folder's Prefect server; None if there is none or this user may not read it."""
    try:
        return key_file(runs).read_text().strip() or None
    except OSError:
        return None


def running_services(runs: Path) -> Services | None:
    """Return the services that `autodidact up` started for a runs folder, if they are running."""
    folder = services_folder(runs)
    try:
        supervisord = psutil.Process(int((folder / "supervisord.pid").read_text()))
        found = Services(**json.loads((folder / "services.json").read_text()))
        # The id in the file may be another process's by now; ours has the file's path in its arguments.
        return found if str(folder / "supervisord.pid") in supervisord.cmdline() else None
    except (OSError, ValueError, TypeError, psutil.Error):
        return None


def cache_folder() -> Path:
    """Return `$AUTODIDACT_CACHE`, by default `~/.cache/autodidact`."""
    return Path(os.environ.get("AUTODIDACT_CACHE") or Path.home() / ".cache" / "autodidact").absolute()


WAY_ON = "Choose another --runs-dir, or work in another folder."


class RunsFolderError(AutodidactError):
    """The folder of runs cannot be used, or its name does not work for the databases in it."""


def prepare(runs: Path, dry_run: bool = False) -> None:
    """Set the environment of this process. Call it before Prefect, MLflow or matplotlib is imported.

    If services are running for that folder, they are used.

    Args:
        dry_run: write nothing, not even folders.

    Raises:
        RunsFolderError: the folder's name does not work for databases, or it cannot be written.
    """
    _check_name(runs.absolute())
    cache = cache_folder()
    folders = {
        "HF_HOME": cache / "huggingface",
        "MPLCONFIGDIR": cache / "matplotlib",
        # Prefect makes this folder when it is imported, unless it exists.
        "PREFECT_HOME": Path.home() if dry_run else runs.absolute() / PREFECT,
        "PREFECT_SERVER_MEMO_STORE_PATH": runs.absolute() / PREFECT / "memo_store.toml",  # PREFECT_HOME is ignored
        "TORCH_EXTENSIONS_DIR": cache / "torch_extensions",
        "TORCHINDUCTOR_CACHE_DIR": cache / "torchinductor",
        "TRITON_HOME": cache / "triton",
        "VLLM_CACHE_ROOT": cache / "vllm",
        "VLLM_CONFIG_ROOT": cache / "vllm",
    }
    switches = {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a loop does not wait long for its history, which is completed later
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT": LINE.format("%(message)s"),
        "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT": LINE.format("%(task_run_name)s: %(message)s"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    for name, value in {**folders, **switches}.items():
        os.environ.setdefault(name, str(value))
    bypass_proxies()
    if services := running_services(runs):
        _use(services, read_key(runs))
    if dry_run:
        return
    try:
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunsFolderError(
            f"{runs} cannot be used as the folder of runs: {error.strerror} ({error.filename}).", what_next=WAY_ON
        ) from None


def _use(services: Services, key: str | None) -> None:
    os.environ.setdefault("PREFECT_API_URL", services.prefect)
    os.environ.setdefault("MLFLOW_TRACKING_URI", services.mlflow)
    if key and os.environ["PREFECT_API_URL"] == services.prefect:  # no other server gets the key
        os.environ.setdefault("PREFECT_API_AUTH_STRING", key)
    bypass_proxies(*(str(urlsplit(address).hostname) for address in (services.prefect, services.mlflow)))


def bypass_proxies(*hosts: str) -> None:
    """Bypass the proxy of variables such as `http_proxy` for this machine and these hosts."""
    given = [name.strip() for variable in NO_PROXY for name in os.environ.get(variable, "").split(",")]
    names = dict.fromkeys([*filter(None, given), "127.0.0.1", "localhost", "::1", *hosts])
    os.environ.update(dict.fromkeys(NO_PROXY, ",".join(names)))


def _check_name(runs: Path) -> None:
    if "\0" in str(runs):
        raise RunsFolderError(f"{str(runs)!r} contains a NUL, which no path may.", what_next=WAY_ON)
    if "?" in str(runs):  # where an SQLite file's address ends
        raise RunsFolderError(f"{runs} has a question mark in it, so databases cannot be kept there.", what_next=WAY_ON)
    try:
        str(runs).encode()
    except UnicodeEncodeError:
        raise RunsFolderError(
            f"{runs} is not valid UTF-8, so databases cannot be kept there.", what_next=WAY_ON
        ) from None


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a stage's program: this process's, without orchestration, unbuffered and quiet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ORCHESTRATION)}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    # Do not import a user's models.py or data.py from the working directory.
    environment["PYTHONSAFEPATH"] = "1"
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP threads that spin for long make two programs on the same cores many times slower.
    environment.setdefault("GOMP_SPINCOUNT", "2000")
    environment.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::UserWarning")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment | dict(extra or {})
