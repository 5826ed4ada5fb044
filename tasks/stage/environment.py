"""Where libraries may write. Every cache and state folder is put below the cache folder or the runs folder.

Nothing is written outside the working directory, the cache folder and the system's temp folder. A variable that the
user has set is left alone; only the names that no proxy is asked for are added to.
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

# What Prefect, the services and MLflow keep beside the runs of a folder.
PREFECT, SERVICES, SQLITE, ARTIFACTS = "prefect", "services", "mlflow.db", "mlflow-artifacts"

# How often a flow run shows that it lives; Prefect takes no less.
HEARTBEAT_SECONDS = 30

# Threads that spin, or are bound to a core that somebody else uses, slow vLLM on a shared CPU down ten times.
SHARED_CPU = {"OMP_WAIT_POLICY": "PASSIVE", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


# Where Prefect's server and its clients look for the key.
KEY_VARIABLES = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")

NO_PROXY = ("no_proxy", "NO_PROXY")  # of which libraries read one or the other

# How Prefect shows a line of a flow's log; that of a stage begins with the stage's name.
LINE = "%(asctime)s | %(levelname)-7s | {}"

# Programs of a stage know no orchestration, and what models write may run there: they get no key and no address of it.
ORCHESTRATION = ("PREFECT_", "MLFLOW_", "AUTODIDACT_DATABASE", "AUTODIDACT_NOTIFY")


@dataclass(frozen=True)
class Services:
    """Addresses of the Prefect server's API and of the MLflow server."""

    prefect: str
    mlflow: str


def services_folder(runs: Path) -> Path:
    """Where the services of a runs folder keep their logs and their addresses."""
    return runs.absolute() / SERVICES


def key_file(runs: Path) -> Path:
    """Where the services of a runs folder keep the key of Prefect's server. Only its owner may read it."""
    return services_folder(runs) / "prefect.key"


def read_key(runs: Path) -> str | None:
    """The key of the Prefect server of a runs folder, if there is one and this user may read it."""
    try:
        return key_file(runs).read_text().strip() or None
    except OSError:
        return None


def running_services(runs: Path) -> Services | None:
    """The services that `autodidact up` started for a runs folder, if they run."""
    folder = services_folder(runs)
    try:
        supervisord = psutil.Process(int((folder / "supervisord.pid").read_text()))
        found = Services(**json.loads((folder / "services.json").read_text()))
        # The number in the file may be another process's by now: ours is told where to write it.
        return found if str(folder / "supervisord.pid") in supervisord.cmdline() else None
    except (OSError, ValueError, TypeError, psutil.Error):
        return None


def cache_folder() -> Path:
    """`$AUTODIDACT_CACHE`, by default `~/.cache/autodidact`."""
    return Path(os.environ.get("AUTODIDACT_CACHE") or Path.home() / ".cache" / "autodidact").absolute()


WAY_ON = "Choose another --runs-dir, or work in another folder."


class RunsFolderError(AutodidactError):
    """The folder of runs cannot be used, or has a name that something in it cannot be called by."""


def prepare(runs: Path, dry_run: bool = False) -> None:
    """Set the environment of this process. To be called before Prefect, MLflow or matplotlib is imported.

    Where services run for that folder, they are used.

    Args:
        dry_run: nothing is to be written, not even folders.

    Raises:
        RunsFolderError: the databases of that folder could not be named, or it cannot be written.
    """
    _check_name(runs.absolute())
    cache = cache_folder()
    folders = {
        "HF_HOME": cache / "huggingface",
        "MPLCONFIGDIR": cache / "matplotlib",
        # Prefect makes this folder when it is imported, unless it is there.
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
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # a loop does not wait long for its history: it is completed later
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
    """Reach this machine, and these hosts, without the proxy that variables such as `http_proxy` may name."""
    given = [name.strip() for variable in NO_PROXY for name in os.environ.get(variable, "").split(",")]
    names = dict.fromkeys([*filter(None, given), "127.0.0.1", "localhost", "::1", *hosts])
    os.environ.update(dict.fromkeys(NO_PROXY, ",".join(names)))


def _check_name(runs: Path) -> None:
    if "\0" in str(runs):
        raise RunsFolderError(f"{str(runs)!r} holds a NUL, and no path can.", what_next=WAY_ON)
    if "?" in str(runs):  # where an SQLite file's address ends
        raise RunsFolderError(
            f"{runs} has a question mark in it, and databases cannot be kept there.", what_next=WAY_ON
        )
    try:
        str(runs).encode()
    except UnicodeEncodeError:
        raise RunsFolderError(
            f"{runs} is not valid UTF-8, and databases cannot be kept there.", what_next=WAY_ON
        ) from None


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a stage's program: this process's own, without orchestration, unbuffered and quiet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ORCHESTRATION)}
    environment.setdefault("PYTHONUNBUFFERED", "1")
    # A user's own models.py or data.py in the working directory is none of ours.
    environment["PYTHONSAFEPATH"] = "1"
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP threads that spin long for one another slow two programs on the same cores down many times over.
    environment.setdefault("GOMP_SPINCOUNT", "2000")
    environment.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::UserWarning")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment | dict(extra or {})
