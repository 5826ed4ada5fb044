"""What all tests need."""

import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from models.process import keep_imports
from tasks.stage.environment import cache_folder

# Until all tests are imported: see `pytest_collection_finish`.
gc.disable()
# Or every process that is started would compile this project's modules for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Several test processes share the cores: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Prefect reads this when it is imported.
PREFECT_HOME = tempfile.TemporaryDirectory(prefix="autodidact-prefect-")
os.environ["PREFECT_HOME"] = PREFECT_HOME.name
# These are read when vLLM is imported, which may be before a program sets them.
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
# vLLM asks a process of its own what an architecture can do, once per cache.
os.environ.setdefault("VLLM_CACHE_ROOT", str(cache_folder() / "vllm"))

LONGEST = "tests/e2e/test_rest_em.py"
# Files for one test process: a site with its services is started once for all.
TOGETHER = dict.fromkeys(
    (f"tests/services/test_{name}.py" for name in ("browser", "notifications", "strangers")),
    "tests/services/test_services.py",
)


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Deals whole files to the test processes."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: packed ones hold the time, and all test processes must find the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: whole files are dealt to the processes, and none is to wait for it in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_collection_finish() -> None:
    """What was imported is no garbage, and collecting among it again and again takes time."""
    gc.set_threshold(10_000)
    keep_imports()


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts its background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is tested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def quiet_exit() -> Iterator[None]:
    """Prefect's server says at exit that it stops, when pytest has closed what that would be written to."""
    yield
    logging.raiseExceptions = False


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
