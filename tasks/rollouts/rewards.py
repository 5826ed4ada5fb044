"""Rewards: one or several, functions or models, and which of their settings change the result."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from data.combining import Combination, Part
from data.formats import Use
from data.rewards import Reward, RewardError, grader_version, judged_by, load_named, load_reward, prepare_reward
from data.sandbox.isolation import Level
from models.config import DirectConfig, EngineConfig, JudgeConfig, RewardModelConfig
from models.config_base import Config
from tasks.rollouts.direct_reward import DirectReward
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.model_reward import ModelReward
from tasks.rollouts.trained_reward import TrainedReward
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.devices import visible_gpus
from tasks.stage.run import Run

JUDGED, MODELLED, DIRECT = "judge", "reward-model", "direct"


class PartConfig(Config):
    """How one of several rewards is weighted."""

    weight: Annotated[float, Field(description="Weight in the sum.")] = 1.0
    at_least: Annotated[
        float | None, Field(description="Threshold: values from here on count as 1, lower ones as 0. Default: off.")
    ] = None
    gate: Annotated[
        bool,
        Field(description="Whether an answer that misses `at_least`, or is not correct, gets a total reward of 0."),
    ] = False


class LengthConfig(Config):
    """A penalty on long answers."""

    free_tokens: Annotated[int, Field(ge=0, description="Tokens that cost nothing.")] = 512
    per_token: Annotated[float, Field(gt=0, description="Penalty for each further token.")] = 0.001


class RewardConfig(Config):
    """How answers are scored."""

    name: Annotated[
        str,
        Field(
            description="A built-in reward; a model (judge, reward-model or direct); or your own function or "
            "ModelReward subclass, as package.module:name."
        ),
    ] = "final_answer"
    judge: Annotated[JudgeConfig, Field(description="The judge model, for the reward judge.")] = JudgeConfig()
    model: Annotated[RewardModelConfig, Field(description="The reward model, for the reward reward-model.")] = (
        RewardModelConfig()
    )
    direct: Annotated[
        DirectConfig, Field(description="The language model that scores directly, for the reward direct.")
    ] = DirectConfig()
    options: Annotated[
        dict[str, dict[str, Any]],
        Field(default_factory=dict, description="Settings of your own ModelReward classes, by name."),
    ]
    parts: Annotated[
        dict[str, PartConfig],
        Field(default_factory=dict, description="Several rewards by name; their weighted sum replaces the one above."),
    ]
    length: Annotated[LengthConfig | None, Field(description="A penalty on long answers. Default: off.")] = None
    passes_at: Annotated[
        float, Field(description="With several rewards: the sum from which an answer counts as correct.")
    ] = 1.0
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="Stop if the reward fails on more than this share of the samples.")
    ] = 0.01
    isolation: Annotated[
        Level,
        Field(
            description="The weakest sandbox accepted for programs. limits: only a separate user and resource limits, "
            "for programs that you trust."
        ),
    ] = "bubblewrap"
    workers: Annotated[
        int | None,
        Field(
            ge=1,
            description="Scoring processes, at most one per shard. 1: score in the flow's process, unless scoring "
            "ahead. Default: one per CPU core, if scoring takes long.",
        ),
    ] = None
    ahead: Annotated[
        bool | None,
        Field(description="Score answers while others are still being generated. Default: if there is a GPU."),
    ] = None

    @model_validator(mode="after")
    def _parts_have_use(self) -> Self:
        if self.length and not self.parts:
            raise ValueError(
                "reward.length is subtracted from a sum of rewards, but reward.parts is empty. Name the rewards there, "
                "such as parts: {final_answer: {}}."
            )
        return self

    @model_validator(mode="after")
    def _options_have_use(self) -> Self:
        if unknown := sorted(self.options.keys() - set(self.names)):
            raise ValueError(
                f"reward.options names {', '.join(unknown)}, but the rewards are {', '.join(self.names)}. Put the "
                "options of a reward under its name."
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parts) or (self.name,)

    def without(self, name: str) -> Self | None:
        """The other rewards; None if there are none."""
        others = {other: part for other, part in self.parts.items() if other != name}
        if name not in self.names:
            return self
        return self.model_copy(update={"parts": others}) if others else None

    @property
    def functions(self) -> dict[str, Reward]:
        """The rewards that are functions, by name."""
        return {name: load_reward(name) for name in self.names if not is_model(name)}

    @property
    def models(self) -> dict[str, ModelReward]:
        """The rewards that are models, by name.

        Raises:
            RewardError: the options of one are invalid.
        """
        return {name: self._model(name) for name in self.names if is_model(name)}

    def _model(self, name: str) -> ModelReward:
        if name == JUDGED:
            return Judge(config=self.judge)
        if name == MODELLED:
            return TrainedReward(config=self.model)
        if name == DIRECT:
            return DirectReward(config=self.direct)
        try:
            return _own_model(name).model_validate(self.options.get(name, {}))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RewardError(
                f"The options of reward {name!r} are invalid: {wrong}.", what_next=f"Correct reward.options.{name}."
            ) from None

    @property
    def processes(self) -> int:
        """The most processes that score."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def runs_ahead(self) -> bool:
        """Whether scoring begins during generation. A judge model cannot: it needs the devices that generation uses."""
        return not any(map(is_model, self.names)) and (bool(visible_gpus()) if self.ahead is None else self.ahead)

    @property
    def combination(self) -> Combination | None:
        """How several rewards are combined; None if there is only one."""
        if not self.parts:
            return None
        parts = {name: Part(**part.model_dump()) for name, part in self.parts.items()}
        penalty = {} if self.length is None else self.length.model_dump()
        return Combination(parts, self.passes_at, **penalty)


@dataclass(frozen=True)
class Judging:
    """Settings of a stage in which answers are judged.

    Attributes:
        made: models that score and are made in this run, by the name of their reward.
    """

    reward: RewardConfig
    engine: EngineConfig
    made: Mapping[str, Artifact] = field(default_factory=dict)

    def inputs(self, run: Run) -> dict[str, Artifact]:
        """The judging models that run here."""
        return reward_inputs(run, self.reward, self.made) | dict(self.made)

    @property
    def draws(self) -> bool:
        """Whether a model's verdict depends on the seed."""
        return any(model.draws for model in self.reward.models.values())


def is_model(name: str) -> bool:
    """Whether the named reward is a model."""
    return name in (JUDGED, MODELLED, DIRECT) or (":" in name and inspect.isclass(load_named(name)))


def _own_model(name: str) -> type[ModelReward]:
    found = load_named(name)
    if (
        not (inspect.isclass(found) and issubclass(found, ModelReward))
        or inspect.isabstract(found)
        or not isinstance(getattr(found, "grader", None), str)
    ):
        raise RewardError(
            f"Reward {name!r} is a class, but not a usable ModelReward.",
            what_next="Name a function (problem, completion) that returns a Score, or a subclass of "
            "tasks.rollouts.model_reward.ModelReward with a grader and score().",
        )
    return found


def graders(config: RewardConfig) -> dict[str, str]:
    """Return the name and version of each reward, by name."""
    versions = {name: grader_version(reward) for name, reward in config.functions.items()}
    versions |= {name: model.grader for name, model in config.models.items()}
    return {name: versions[name] for name in config.names}


def reward_identity(config: RewardConfig) -> dict[str, Any]:
    """Return what changes a reward's scores, for a stage's fingerprint, without what `reward_inputs` covers."""
    models = {name: model.identity() for name, model in config.models.items()}
    if config.combination is None:
        return {"grader": graders(config)[config.name]} | models
    return {"graders": graders(config), "combination": asdict(config.combination)} | models


def reward_inputs(run: Run, config: RewardConfig, made: Collection[str] = ()) -> dict[str, Artifact]:
    """Return the judging models that run here, but for those that are made in this run."""
    models = {name: model for name, model in config.models.items() if name not in made}
    found = {name: model.artifact(offline=run.planning) for name, model in models.items()}
    return {name: artifact for name, artifact in found.items() if artifact}


def judging_estimate(judging: Judging, inputs: Mapping[str, Artifact]) -> Estimate:
    """Estimate memory and devices of the judging models, which run one after another.

    Args:
        inputs: result of `reward_inputs`.
    """
    models = judging.reward.models
    return Estimate.one_after_another(
        [models[name].estimate(artifact, judging.engine) for name, artifact in inputs.items()]
    )


def check_reward(config: RewardConfig) -> None:
    """Check that every reward works on this machine.

    Raises:
        RewardError, AskedModelError, ModelError: one cannot be loaded, or does not work on this machine.
    """
    for reward in config.functions.values():
        prepare_reward(reward, config.isolation)
    for model in config.models.values():
        model.check()


def problems_judged_by(*configs: RewardConfig) -> tuple[Use, Callable[[str | None], bool]]:
    """Return what data sets are read as, and a function that tells whether a problem's reference can be judged.

    A model judges any answer, so prompts are enough; also for a function that declares this. Others need references.

    Raises:
        RewardError: two rewards need problems of different kinds.
    """
    functions = {name: reward for config in configs for name, reward in config.functions.items()}
    needs = {name: judged_by(reward) for name, reward in functions.items()}
    needs = {name: (use, can_grade) for name, (use, can_grade) in needs.items() if use != "prompts"}
    uses = {use for use, _ in needs.values()}
    if len(uses) > 1:
        raise RewardError(
            f"The rewards {' and '.join(needs)} need problems of different kinds.",
            what_next="Drop one of them.",
        )
    return uses.pop() if uses else "prompts", lambda reference: all(grade(reference) for _, grade in needs.values())
