"""An iteration of a loop, as what comes after it sees it: its policy and its stages."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.stage.run import Result


@dataclass(frozen=True)
class Iteration:
    """One turn of a loop: its policy and the stages that led to it. Iteration 0 is the base."""

    number: int
    policy: Result
    stages: Mapping[str, Result]
