"""What all tests need."""

import os
import signal

import pytest

# Tests run side by side: threads of one program that wait for each other on busy cores would slow all down ten times.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts its background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is tested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
