"""The reward `direct`: a language model's expected score of an answer (d-RLAIF, arXiv 2309.00267, section 3.2.2)."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from data.chat_template import naming
from data.label_questions import VERSION, scored
from data.render import first_of_each_shape, prompt_token_ids
from data.rows import Problem
from models.config import DirectConfig, DirectScoreProgram, EngineConfig, ScoreJob, ScoringConfig
from models.estimate import generation_bytes_per_device, parameters_of
from models.loading import load_tokenizer
from tasks.policies.asked_model import asked_artifact, asked_code, check_asked
from tasks.rollouts.model_reward import ModelReward
from tasks.rollouts.trained_reward import run_scoring
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.run import Place

ROLE = "model that scores directly"


class DirectReward(ModelReward):
    """A language model that scores each answer from 1 to 10, read as a reward from −1 to 1."""

    grader: ClassVar[str] = f"direct@{VERSION}"

    config: DirectConfig

    def identity(self) -> dict[str, Any]:
        """The settings that change the scores. The weights are in `artifact`."""
        apart = {"model", "model_code", "model_revision", "batch_tokens"}
        return self.config.model_dump(mode="json", exclude=apart) | asked_code(self.config.asked)

    def artifact(self, offline: bool = False) -> Artifact | None:
        """The model's folder and digest, see `tasks.policies.asked_model.asked_artifact`."""
        return asked_artifact(self.config.asked, ROLE, offline)

    def estimate(self, artifact: Artifact, engine: EngineConfig) -> Estimate:
        weights = generation_bytes_per_device(parameters_of(artifact.path), self.config.dtype, EngineConfig())
        return Estimate(gpu_bytes=weights, devices=1)

    def check(self) -> None:
        """Refuse a model that cannot work, see `tasks.policies.asked_model.check_asked`."""
        check_asked(self.config.asked, ROLE)

    def check_problems(self, problems: Iterable[Problem]) -> None:
        """Render a question about one problem of each kind.

        Raises:
            TemplateError: naming the problem that the chat template fails on.
        """
        artifact = self.artifact()
        assert artifact is not None
        tokenizer = load_tokenizer(artifact.path, self.config.model_code)
        for problem in first_of_each_shape(problems):
            with naming(f"Problem {problem.id} of {problem.source}, for the {ROLE}"):
                prompt_token_ids(tokenizer, scored(problem, "", self.config.rubric))

    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        """Run the scoring program.

        Raises:
            ChildError: the program failed.
        """
        run_scoring(at.run, attempt, self.program(jobs), direct_command)

    def program(self, jobs: list[ScoreJob]) -> DirectScoreProgram:
        """The scoring program's configuration."""
        artifact, config = self.artifact(), self.config
        assert artifact is not None
        told: dict[str, Any] = {"model": artifact.path, "model_code": config.model_code, "rubric": config.rubric}
        told |= {"jobs": jobs, "passes_at": config.passes_at, "max_length": config.max_length, "grader": self.grader}
        scoring = ScoringConfig(batch_tokens=config.batch_tokens, dtype=config.dtype)
        return DirectScoreProgram.model_validate(told | {"scoring": scoring})


def direct_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.training.direct_score", str(config)]
