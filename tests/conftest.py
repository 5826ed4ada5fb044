"""What all tests need."""

import os
import signal

import pytest

# Several test processes share the cores: more threads would only wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts its background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is tested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One for all runs without services: Prefect takes seconds to make its database."""
    os.environ["PREFECT_HOME"] = str(tmp_path_factory.mktemp("prefect"))
