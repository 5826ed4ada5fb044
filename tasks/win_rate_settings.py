"""The settings of a win rate, and what is refused or warned of before anything heavy starts."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from models.config import Config, JudgeConfig
from tasks.judge import check_judge, judge_artifact
from tasks.logs import run_logger
from tasks.model_folder import folder_digest, resolve_model
from tasks.policy import PolicySource


class WinRateJudge(JudgeConfig):
    """The judge of a win rate: it compares two answers, greedily, once in each order."""

    kind: Annotated[Literal["pairwise"], Field(description="Two answers are compared.")] = "pairwise"
    opinions: Annotated[int, Field(ge=1, description="Replies per order that are averaged.")] = 1
    temperature: Annotated[float, Field(ge=0, description="Of the judge's replies; 0 is greedy.")] = 0.0

    @model_validator(mode="after")
    def _two_answers(self) -> "WinRateJudge":
        if self.opponents != 2 or self.passes_at is not None:
            raise ValueError(
                "A win rate compares exactly two answers and calls none of them correct. Leave out opponents and "
                "passes_at."
            )
        return self


class WinRateConfig(Config):
    """How often a fixed judge prefers the policy's answers to held-out prompts to those of another."""

    judge: Annotated[WinRateJudge, Field(description="The model that compares; it should be none that is trained.")] = (
        WinRateJudge()
    )
    against: Annotated[
        tuple[Literal["base", "previous", "gold"], ...],
        Field(
            description="Whose answers: those of the base, of the iteration before, or gold ones. The first decides."
        ),
    ] = ("base",)
    prompts: Annotated[
        int | None, Field(ge=1, description="Compare answers to the first of the held-out prompts only; none: to all.")
    ] = None

    @field_validator("against")
    @classmethod
    def _can_decide(cls, against: tuple[str, ...]) -> tuple[str, ...]:
        if not against or against[0] == "previous":
            raise ValueError(
                "The first opponent decides, so it has to stay the same in all iterations. Begin with base or gold."
            )
        if len(set(against)) < len(against):
            raise ValueError("An opponent is named twice. Name each once.")
        return against


def check_win_rate(config: WinRateConfig, policy: PolicySource) -> None:
    """Refuse a judge that cannot work, and warn of one that judges its own answers.

    Raises:
        JudgeError, ModelError, TemplateError: as `check_judge` says.
    """
    check_judge(config.judge)
    if judges_itself(config.judge, policy):
        run_logger().warning(
            "The judge of the win rate, %s, is the model that is trained. A model prefers answers like its own, so "
            "this win rate says little. Choose another judge.",
            config.judge.model,
        )


def judges_itself(judge: JudgeConfig, policy: PolicySource) -> bool:
    """Whether the judge is the model that the loop begins with: by name at an endpoint, else by folder or content."""
    if policy.model is None:
        return False
    artifact = judge_artifact(judge)
    if artifact is None:
        return judge.model == policy.model
    folder = resolve_model(policy.model, policy)
    assert folder is not None
    return folder.resolve() == artifact.path.resolve() or folder_digest(folder) == artifact.digest
