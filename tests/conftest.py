"""What all tests need."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell starts its background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is tested."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
