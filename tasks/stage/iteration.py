"""An iteration of a loop, as later code sees it: its policy and its stages."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.stage.run import Result


@dataclass(frozen=True)
class Iteration:
    """One iteration of a loop: its policy and the stages that made it. Iteration 0 is the base."""

    number: int
    policy: Result
    stages: Mapping[str, Result]
