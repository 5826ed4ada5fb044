"""What judges answers: one reward or several, functions or models, and what of them changes the result."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from data.combining import Combination, Part
from data.formats import Use
from data.rewards import Reward, RewardError, grader_version, judged_by, load_named, load_reward, prepare_reward
from data.sandbox.isolation import Level
from models.config import Config, EngineConfig, JudgeConfig, RewardModelConfig
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.model_reward import ModelReward
from tasks.rollouts.trained_reward import TrainedReward
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.devices import visible_gpus
from tasks.stage.run import Run

JUDGED, MODELLED = "judge", "reward-model"


class PartConfig(Config):
    """How one of several rewards counts."""

    weight: Annotated[float, Field(description="Factor of its value.")] = 1.0
    at_least: Annotated[
        float | None, Field(description="Its value counts as 1 from here on and as 0 below; none: as it is.")
    ] = None
    gate: Annotated[
        bool,
        Field(description="Whether an answer that does not reach `at_least`, or is not correct, is worth 0 in all."),
    ] = False


class LengthConfig(Config):
    """A penalty on long answers."""

    free_tokens: Annotated[int, Field(ge=0, description="Tokens that cost nothing.")] = 512
    per_token: Annotated[float, Field(gt=0, description="What each further one takes off the reward.")] = 0.001


class RewardConfig(Config):
    """What judges an answer."""

    name: Annotated[
        str,
        Field(
            description="A built-in reward; a model: judge or reward-model; or your own as package.module:name, a "
            "function or a subclass of ModelReward."
        ),
    ] = "final_answer"
    judge: Annotated[JudgeConfig, Field(description="The model that judges, for the reward judge.")] = JudgeConfig()
    model: Annotated[RewardModelConfig, Field(description="The reward model, for the reward reward-model.")] = (
        RewardModelConfig()
    )
    options: Annotated[
        dict[str, dict[str, Any]],
        Field(default_factory=dict, description="Settings of rewards of your own that are models, by name."),
    ]
    parts: Annotated[
        dict[str, PartConfig],
        Field(default_factory=dict, description="Several rewards by name, whose weighted sum replaces the one above."),
    ]
    length: Annotated[
        LengthConfig | None, Field(description="A penalty on long answers; none: length costs nothing.")
    ] = None
    passes_at: Annotated[
        float, Field(description="Where several rewards make one: answers of at least this sum are correct.")
    ] = 1.0
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="Stop if the reward fails on a larger share of the samples.")
    ] = 0.01
    isolation: Annotated[
        Level,
        Field(
            description="The weakest sandbox for programs. limits: only a separate user and resource limits, "
            "for programs that you trust."
        ),
    ] = "bubblewrap"
    workers: Annotated[int, Field(ge=1, description="Processes that score; 1: this one, unless it is done ahead.")] = 1
    ahead: Annotated[
        bool | None,
        Field(description="Score answers while others are still being generated; none: where there is a GPU."),
    ] = None

    @model_validator(mode="after")
    def _parts_have_use(self) -> Self:
        if self.length and not self.parts:
            raise ValueError(
                "reward.length is taken off a sum of rewards, and reward.parts names none. Name them there, such as "
                "parts: {final_answer: {}}."
            )
        return self

    @model_validator(mode="after")
    def _options_have_use(self) -> Self:
        if unknown := sorted(self.options.keys() - set(self.names)):
            raise ValueError(
                f"reward.options names {', '.join(unknown)}, and the rewards are {', '.join(self.names)}. Write the "
                "options of a reward under its own name."
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parts) or (self.name,)

    @property
    def functions(self) -> dict[str, Reward]:
        """The rewards that are functions, by name."""
        return {name: load_reward(name) for name in self.names if not is_model(name)}

    @property
    def models(self) -> dict[str, ModelReward]:
        """The rewards that are models, by name.

        Raises:
            RewardError: the options of one cannot be used.
        """
        return {name: self._model(name) for name in self.names if is_model(name)}

    def _model(self, name: str) -> ModelReward:
        if name == JUDGED:
            return Judge(config=self.judge)
        if name == MODELLED:
            return TrainedReward(config=self.model)
        try:
            return _own_model(name).model_validate(self.options.get(name, {}))
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise RewardError(
                f"Reward {name!r} cannot use its options: {wrong}.", what_next=f"Correct reward.options.{name}."
            ) from None

    @property
    def runs_ahead(self) -> bool:
        """A model that judges needs the devices that the one which answers has."""
        return not any(map(is_model, self.names)) and (bool(visible_gpus()) if self.ahead is None else self.ahead)

    @property
    def combination(self) -> Combination | None:
        """How several rewards make one; None where there is one."""
        if not self.parts:
            return None
        parts = {name: Part(**part.model_dump()) for name, part in self.parts.items()}
        penalty = {} if self.length is None else self.length.model_dump()
        return Combination(parts, self.passes_at, **penalty)


@dataclass(frozen=True)
class Judging:
    """The settings of a stage in which answers are judged."""

    reward: RewardConfig
    engine: EngineConfig

    @property
    def draws(self) -> bool:
        """Whether a model's verdict depends on the seed."""
        return any(model.draws for model in self.reward.models.values())


def is_model(name: str) -> bool:
    """Whether the reward of that name is a model."""
    return name in (JUDGED, MODELLED) or (":" in name and inspect.isclass(load_named(name)))


def _own_model(name: str) -> type[ModelReward]:
    found = load_named(name)
    if (
        not (inspect.isclass(found) and issubclass(found, ModelReward))
        or inspect.isabstract(found)
        or not isinstance(getattr(found, "grader", None), str)
    ):
        raise RewardError(
            f"Reward {name!r} is a class, but no ModelReward that can be used.",
            what_next="Name a function (problem, completion) that returns a Score, or subclass "
            "tasks.rollouts.model_reward.ModelReward with a grader and score().",
        )
    return found


def graders(config: RewardConfig) -> dict[str, str]:
    """Name and version of each reward, by name."""
    versions = {name: grader_version(reward) for name, reward in config.functions.items()}
    versions |= {name: model.grader for name, model in config.models.items()}
    return {name: versions[name] for name in config.names}


def reward_identity(config: RewardConfig) -> dict[str, Any]:
    """What of a reward changes the scores, for a stage's fingerprint; what is in `reward_inputs` is not."""
    models = {name: model.identity() for name, model in config.models.items()}
    if config.combination is None:
        return {"grader": graders(config)[config.name]} | models
    return {"graders": graders(config), "combination": asdict(config.combination)} | models


def reward_inputs(run: Run, config: RewardConfig) -> dict[str, Artifact]:
    """The models that judge, where they run here."""
    found = {name: model.artifact(offline=run.planning) for name, model in config.models.items()}
    return {name: artifact for name, artifact in found.items() if artifact}


def judging_estimate(judging: Judging, inputs: Mapping[str, Artifact]) -> Estimate:
    """Memory and devices that the models which judge take, one after another.

    Args:
        inputs: what `reward_inputs` gave.
    """
    models = judging.reward.models
    return Estimate.one_after_another(
        [models[name].estimate(artifact, judging.engine) for name, artifact in inputs.items()]
    )


def check_reward(config: RewardConfig) -> None:
    """See that every reward can work here.

    Raises:
        RewardError, AskedModelError, ModelError: one cannot be loaded, or cannot work on this machine.
    """
    for reward in config.functions.values():
        prepare_reward(reward, config.isolation)
    for model in config.models.values():
        model.check()


def problems_judged_by(*configs: RewardConfig) -> tuple[Use, Callable[[str | None], bool]]:
    """What data sets have to be read as, and whether a problem with a reference can be judged.

    A model judges any answer, so it needs prompts alone; so does a function that says so. Others need what they read.

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
            what_next="Leave one out.",
        )
    return uses.pop() if uses else "prompts", lambda reference: all(grade(reference) for _, grade in needs.values())
