"""The interface of a reward that is a model.

To add one, subclass `ModelReward` in a module of your own and name it as `reward.name: package.module:Class`, with its
settings under `reward.options`. Its `score` runs a program and leaves files of Score rows. It starts the program with
`at.run.start` and `at.run.child_lock`, and holds GPUs with `gpus_held`; the program's configuration goes into a hidden
file of the attempt. `TrainedReward` is an example.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from data.rows import Problem
from models.config import EngineConfig, ScoreJob
from models.config_base import Config
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.run import Place


class ModelReward(Config, ABC):
    """A reward that is a model. Its fields are its settings."""

    grader: ClassVar[str]
    """Name and version, kept with every score. Raise the version when scores change."""
    draws: ClassVar[bool] = False
    """Whether its output is sampled, with the stage's seed."""

    def identity(self) -> dict[str, Any]:
        """The settings that change the scores, for a stage's fingerprint, without what `artifact` covers."""
        return self.model_dump(mode="json")

    def artifact(self, offline: bool = False) -> Artifact | None:
        """The model's folder and digest, if it runs here. No digest if `offline` and it is not downloaded yet."""
        return None

    def estimate(self, artifact: Artifact, engine: EngineConfig) -> Estimate:
        """Memory and devices that it needs."""
        return Estimate()

    def check(self) -> None:
        """Refuse what cannot work, before anything heavy starts."""

    def check_problems(self, problems: Iterable[Problem]) -> None:
        """Refuse problems that it cannot score."""

    @abstractmethod
    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        """Write a file of Score rows for each shard of samples of each job, in the same order, into its `output`.

        Must keep the shards that an earlier attempt scored.
        """

    def rates(self, scores: Path) -> dict[str, Any] | None:
        """Statistics for the stage's tally, read from the folder that `score` wrote to."""
        return None
