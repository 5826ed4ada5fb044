"""Where libraries may write. Every cache and state folder is put below the cache folder or the runs folder.

Nothing is written outside the working directory, the cache folder and the system's temp folder. A variable that the
user has set is left alone.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from data.errors import AutodidactError

# What Prefect, the services and MLflow keep beside the runs of a folder.
PREFECT, SERVICES, DATABASE, ARTIFACTS = "prefect", "services", "mlflow.db", "mlflow-artifacts"

# How often a flow run shows that it lives; Prefect takes no less.
HEARTBEAT_SECONDS = 30

# Threads that spin, or are bound to a core that somebody else uses, slow vLLM on a shared CPU down ten times.
SHARED_CPU = {"OMP_WAIT_POLICY": "PASSIVE", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


@dataclass(frozen=True)
class Services:
    """Addresses of the Prefect server's API and of the MLflow server."""

    prefect: str
    mlflow: str


def services_folder(runs: Path) -> Path:
    """Where the services of a runs folder keep their logs and their addresses."""
    return runs.absolute() / SERVICES


def running_services(runs: Path) -> Services | None:
    """The services that `autodidact up` started for a runs folder, if they run."""
    folder = services_folder(runs)
    try:
        supervisord = int((folder / "supervisord.pid").read_text())
        found = Services(**json.loads((folder / "services.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if psutil.pid_exists(supervisord) else None


def cache_folder() -> Path:
    """`$AUTODIDACT_CACHE`, by default `~/.cache/autodidact`."""
    return Path(os.environ.get("AUTODIDACT_CACHE") or Path.home() / ".cache" / "autodidact").absolute()


class RunsFolderError(AutodidactError):
    """The folder of runs has a name that something in it cannot be called by."""


def prepare(runs: Path, dry_run: bool = False) -> None:
    """Set the environment of this process. To be called before Prefect, MLflow or matplotlib is imported.

    Where services run for that folder, they are used.

    Args:
        dry_run: nothing is to be written, not even folders.

    Raises:
        RunsFolderError: the databases of that folder could not be named.
    """
    _check_name(runs.absolute())
    cache = cache_folder()
    folders = {
        "HF_HOME": cache / "huggingface",
        "MPLCONFIGDIR": cache / "matplotlib",
        # Prefect makes this folder when it is imported, unless it is there.
        "PREFECT_HOME": Path(__file__).parent if dry_run else runs.absolute() / PREFECT,
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
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    services = running_services(runs)
    servers = {"PREFECT_API_URL": services.prefect, "MLFLOW_TRACKING_URI": services.mlflow} if services else {}
    for name, value in {**folders, **switches, **servers}.items():
        os.environ.setdefault(name, str(value))
    if not dry_run:
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def _check_name(runs: Path) -> None:
    way_on = "Choose another --runs_dir, or work in another folder."
    if "?" in str(runs):  # where an SQLite file's address ends
        raise RunsFolderError(
            f"{runs} has a question mark in it, and databases cannot be kept there.", what_next=way_on
        )
    try:
        str(runs).encode()
    except UnicodeEncodeError:
        raise RunsFolderError(f"{runs} is no UTF-8, and databases cannot be kept there.", what_next=way_on) from None


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a stage's program: this process's own, unbuffered, quiet, and on the CPU where no GPU is."""
    environment = dict(os.environ)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    # A user's own models.py or data.py in the working directory is none of ours.
    environment["PYTHONSAFEPATH"] = "1"
    environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP threads that spin long for one another slow two programs on the same cores down many times over.
    environment.setdefault("GOMP_SPINCOUNT", "2000")
    environment.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::UserWarning")
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    return environment | dict(extra or {})
