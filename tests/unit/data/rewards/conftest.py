"""What the reward tests share: a problem with a given reference, and a worker that ends with the tests."""

from collections.abc import Callable, Iterator

import pytest

from data.rewards import final_answer as module
from data.rows import Problem


@pytest.fixture
def problem() -> Callable[[str | None], Problem]:
    def make(reference: str | None) -> Problem:
        return Problem("p17", [{"role": "user", "content": "?"}], reference, None, "test", "train")

    return make


@pytest.fixture(scope="session", autouse=True)
def _end_worker() -> Iterator[None]:
    yield
    module.close()
