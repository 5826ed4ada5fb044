"""The settings of a win rate, and checks before anything heavy starts."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from models.config import JudgeConfig
from models.config_base import Config
from tasks.policies.base import PolicySource
from tasks.policies.model_folder import folder_digest, resolve_model
from tasks.rollouts.judge_reward import Judge
from tasks.stage.contract import MANIFEST
from tasks.stage.logs import run_logger
from tasks.stage.run import CONFIG


class WinRateJudge(JudgeConfig):
    """The judge of a win rate: it compares two answers, greedily, once in each order."""

    kind: Annotated[Literal["pairwise"], Field(description="Compare two answers.")] = "pairwise"
    opinions: Annotated[int, Field(ge=1, description="Replies per order; they are averaged.")] = 1
    temperature: Annotated[float, Field(ge=0, description="Temperature of the judge's replies; 0 is greedy.")] = 0.0

    @model_validator(mode="after")
    def _two_answers(self) -> "WinRateJudge":
        if self.opponents != 2 or self.passes_at is not None:
            raise ValueError(
                "A win rate compares exactly two answers and calls neither of them correct. Leave out opponents and "
                "passes_at."
            )
        return self


class WinRateConfig(Config):
    """How often a fixed judge prefers the policy's answers to held-out prompts over another's."""

    judge: Annotated[WinRateJudge, Field(description="The judge model; should not be the model being trained.")] = (
        WinRateJudge()
    )
    against: Annotated[
        tuple[Literal["base", "previous", "gold"], ...],
        Field(description="Opponents: the base, the previous iteration, or gold answers. The first one decides."),
    ] = ("base",)
    prompts: Annotated[
        int | None, Field(ge=1, description="Number of held-out prompts to compare, from the first. Default: all.")
    ] = None

    @field_validator("against")
    @classmethod
    def _can_decide(cls, against: tuple[str, ...]) -> tuple[str, ...]:
        if not against or against[0] == "previous":
            raise ValueError(
                "The first opponent decides, so it must stay the same in all iterations. Put base or gold first."
            )
        if len(set(against)) < len(against):
            raise ValueError("An opponent is named twice. Name each once.")
        return against


def check_win_rate(config: WinRateConfig, policy: PolicySource) -> None:
    """Refuse a judge that cannot work, and warn of one that judges its own answers.

    Raises:
        AskedModelError, ModelError, TemplateError: see `Judge.check`.
    """
    Judge(config=config.judge).check()
    if judges_itself(config.judge, policy):
        run_logger().warning(
            "The judge of the win rate, %s, is the model being trained, or one that it was trained from. A model "
            "prefers answers like its own, so this win rate means little. Choose another judge.",
            config.judge.model,
        )


def judges_itself(judge: JudgeConfig, policy: PolicySource) -> bool:
    """Whether the judge is the model that the loop starts from, or an ancestor of it in earlier runs.

    At an endpoint, models are compared by name; otherwise by folder or content.
    """
    if policy.model is None:
        return False
    artifact, earlier = Judge(config=judge).artifact(), list(_trained_from(Path(policy.model)))
    if artifact is None:
        return judge.model in (policy.model, *(model for model, _ in earlier))
    folder = resolve_model(policy.model, policy)
    assert folder is not None
    known = [(str(folder), folder_digest(folder)), *earlier]
    return any(digest == artifact.digest or Path(m).resolve() == artifact.path.resolve() for m, digest in known)


def _trained_from(policy: Path) -> Iterator[tuple[str, str | None]]:
    """Yield the base model of the run that made a policy, with its digest, then that model's base, and so on.

    Ends at a model that is not from a run, or whose run's files are gone.
    """
    seen: set[Path] = set()
    while (policy := policy.resolve()) not in seen:
        seen.add(policy)
        run = next((folder for folder in policy.parents if (folder / "base" / MANIFEST).exists()), None)
        if run is None:
            return
        try:
            model = json.loads((run / CONFIG).read_text())["model"]
            digest = json.loads((run / "base" / MANIFEST).read_text())["inputs"].get("model")
        except (OSError, ValueError, KeyError):
            return
        if model is None:
            return
        yield model, digest
        policy = Path(model)
