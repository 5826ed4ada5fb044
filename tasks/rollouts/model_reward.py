"""A reward that is a model: what a stage asks of it, whichever it is.

To add one, subclass `ModelReward` in a module of your own and name it as `reward.name: package.module:Class`, with its
settings under `reward.options`. Its `score` runs a program and leaves files of Score rows. It starts the program by
`at.run.start`, with `at.run.child_lock`, and holds GPUs by `gpus_held`; what the program is told goes into a hidden
file of the attempt. `TrainedReward` is an example.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from data.rows import Problem
from models.config import Config, EngineConfig, ScoreJob
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.run import Place


class ModelReward(Config, ABC):
    """A reward that is a model. Its fields are its settings."""

    grader: ClassVar[str]
    """Name and version, kept with every score. The version rises where scores change."""
    draws: ClassVar[bool] = False
    """Whether what it says is drawn at random, by the stage's seed."""

    def identity(self) -> dict[str, Any]:
        """What of its settings changes the scores, for a stage's fingerprint; what is in `artifact` is not."""
        return self.model_dump(mode="json")

    def artifact(self, offline: bool = False) -> Artifact | None:
        """The model's folder and its digest, where it runs here; without digest if `offline` and it is not here yet."""
        return None

    def estimate(self, artifact: Artifact, engine: EngineConfig) -> Estimate:
        """Memory and devices that it takes."""
        return Estimate()

    def check(self) -> None:
        """Refuse what cannot work, before anything heavy starts."""

    def check_problems(self, problems: Iterable[Problem]) -> None:
        """See that the problems can be put to it."""

    @abstractmethod
    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        """Write a file of Score rows for each shard of samples of each job, in their order, into the job's `output`.

        Shards that an earlier attempt scored are to be kept.
        """

    def rates(self, scores: Path) -> dict[str, Any] | None:
        """How it did, from the folder that `score` wrote to, for the stage's tally."""
        return None
