"""Settings of training on a policy's own fresh answers, and of the program that does it. Loads no torch."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data.combining import Combination
from data.sandbox.isolation import Level
from models.config import (
    DirectScoreProgram,
    EngineConfig,
    JudgeProgram,
    LaunchConfig,
    LaunchedProgram,
    ModelCode,
    RewardScoreProgram,
    SamplingConfig,
    Schedule,
    TrainConfig,
)
from models.config_base import Config

ROLLOUTS = "rollouts"  # the folder of the answers that were drawn, a file for each step

Advantage = Literal["group", "group-no-std", "leave-one-out"]
Normalizer = Literal["sequence", "tokens", "constant"]
KLEstimator = Literal["k2", "k3"]
Correction = Literal["none", "truncate", "mask"]


class OnPolicySamplingConfig(SamplingConfig):
    """How answers are drawn: from the policy's whole distribution, or gradients would be of another one."""

    samples: Annotated[int, Field(ge=1, description="Answers to each problem in a step.")] = 1
    temperature: Annotated[
        float, Field(gt=0, description="Sampling temperature, by which logits are divided in training, too.")
    ] = 1.0
    top_p: Annotated[float, Field(ge=1, le=1, description="Must be 1.")] = 1.0
    top_k: Annotated[int, Field(ge=0, le=0, description="Must be 0.")] = 0


class GroupSamplingConfig(OnPolicySamplingConfig):
    """How a group of answers is drawn."""

    samples: Annotated[int, Field(ge=2, description="Answers in the group of each problem.")] = 8


class OnPolicyLaunchConfig(LaunchConfig):
    """How on-policy training is spread over devices. Here, the number of processes changes the result."""

    checkpoint_steps: Annotated[int, Field(ge=1, description="Steps between checkpoints to resume from.")] = 5
    log_steps: Annotated[int, Field(ge=1, le=1, description="Must be 1: every step has its line.")] = 1
    evaluations: Annotated[
        int, Field(ge=0, le=0, description="Must be 0: held-out problems are answered after each iteration.")
    ] = 0


class OnPolicyEngineConfig(EngineConfig):
    """How vLLM runs. In training, it shares each GPU with the trainer, and has one device."""

    beside_trainer: Annotated[
        float, Field(gt=0, le=1, description="Share of GPU memory to use in training, beside the trainer.")
    ] = 0.4

    @property
    def in_training(self) -> EngineConfig:
        """How it runs there."""
        told = self.model_dump(exclude={"beside_trainer"})
        return EngineConfig(**told | {"tensor_parallel_size": 1, "gpu_memory_utilization": self.beside_trainer})


class OnPolicyConfig(TrainConfig):
    """Hyperparameters that all learning from a policy's own fresh answers has."""

    adam_epsilon: ClassVar[float] = 1e-8

    steps: Annotated[int, Field(ge=1, description="Steps in an iteration; each draws new answers.")] = 25
    problems: Annotated[int, Field(ge=1, description="Problems in a step, over all devices.")] = 64
    batch_size: Annotated[int, Field(ge=1, description="Answers in an update, over all devices.")] = 512
    epochs: Annotated[float, Field(ge=1, description="Passes over the answers of a step; a whole number.")] = 1.0
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-6
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of all steps spent on learning-rate warmup.")] = 0.1
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule over the steps of all iterations.")] = (
        "constant_with_warmup"
    )
    clip_low: Annotated[float, Field(gt=0, lt=1, description="A probability ratio is clipped below 1 − this.")] = 0.2
    clip_high: Annotated[float, Field(gt=0, description="A probability ratio is clipped above 1 + this.")] = 0.28
    correction: Annotated[
        Correction,
        Field(
            description="Importance weight of tokens whose probability differs between sampler and trainer: truncate: "
            "at most the cap; mask: 0 above the cap."
        ),
    ] = "truncate"
    cap: Annotated[float, Field(gt=1, description="Cap of the importance weight.")] = 2.0
    most_drift: Annotated[
        float,
        Field(gt=0, description="Stop if sampler and trainer differ by more than this, in nats per token on average."),
    ] = 0.1
    most_kl: Annotated[
        float | None,
        Field(
            gt=0,
            description="End the loop after an iteration in whose last step the KL divergence from the base was more "
            "than this, in nats per token. Default: off.",
        ),
    ] = None

    runaway_kl: Annotated[
        float | None,
        Field(
            gt=0,
            description="Stop at once, with an error, if the KL divergence from the base exceeds this, in nats per "
            "token.",
        ),
    ] = 10.0

    @property
    def rounds(self) -> int:
        """How often a step draws problems, at most."""
        return 1

    @property
    def mixed(self) -> int:
        """Rows of other data that an update learns from, for each answer."""
        return 0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.epochs != int(self.epochs):
            raise ValueError(
                f"train.epochs is {self.epochs:g}, but a step passes over its answers a whole number of times."
            )
        return self


class GroupsConfig(OnPolicyConfig):
    """Hyperparameters of policy gradients with groups of answers. Defaults: DAPO (arXiv 2503.14476)."""

    advantage: Annotated[
        Advantage,
        Field(
            description="group: reward minus the group's mean, over its standard deviation (GRPO); group-no-std: minus "
            "the mean alone (Dr. GRPO); leave-one-out: minus the mean of the others (RLOO)."
        ),
    ] = "group"
    normalizer: Annotated[
        Normalizer,
        Field(
            description="What a batch's loss is divided by. tokens: all its tokens (DAPO); sequence: each answer's "
            "tokens, then answers (GRPO); constant: answers times generate.max_tokens (Dr. GRPO)."
        ),
    ] = "tokens"
    kl: Annotated[float, Field(ge=0, description="Weight of the KL divergence from the base in the loss.")] = 0.0
    kl_estimator: Annotated[KLEstimator, Field(description="Estimator of the KL divergence: k3 is GRPO's.")] = "k3"
    dynamic: Annotated[
        bool,
        Field(description="Replace groups whose answers all have the same reward by those of further problems (DAPO)."),
    ] = True
    refills: Annotated[int, Field(ge=0, description="How often a step draws further problems for that, at most.")] = 2
    overlong: Annotated[
        int,
        Field(ge=0, description="Tokens before generate.max_tokens from which on answers lose reward; 0: none (DAPO)."),
    ] = 0
    patience: Annotated[
        int, Field(ge=1, description="Stop after so many steps in a row in which no group's rewards differ.")
    ] = 10

    @property
    def rounds(self) -> int:
        return 1 + (self.refills if self.dynamic else 0)


class PPOConfig(OnPolicyConfig):
    """Hyperparameters of PPO (arXiv 1707.06347). Defaults: the N+ implementation details of RLHF (arXiv 2403.17031)."""

    adam_epsilon: ClassVar[float] = 1e-5

    problems: Annotated[int, Field(ge=1, description="Problems in a step, over all devices.")] = 512
    epochs: Annotated[float, Field(ge=1, description="Passes over the answers of a step; a whole number.")] = 4.0
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 3e-6
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of all steps spent on learning-rate warmup.")] = 0.0
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule over the steps of all iterations.")] = (
        "linear"
    )
    clip_high: Annotated[float, Field(gt=0, description="A probability ratio is clipped above 1 + this.")] = 0.2
    kl: Annotated[
        float, Field(ge=0, description="Weight of the KL divergence from the start in the reward, or the first one.")
    ] = 0.05
    kl_target: Annotated[
        float | None,
        Field(gt=0, description="The weight follows the divergence to this, in nats per answer. Default: it is fixed."),
    ] = None
    kl_horizon: Annotated[int, Field(ge=1, description="Answers over which it follows; more is slower.")] = 10_000
    discount: Annotated[float, Field(gt=0, le=1, description="Discount γ of later rewards.")] = 1.0
    decay: Annotated[float, Field(ge=0, le=1, description="λ of generalized advantages.")] = 0.95
    value_clip: Annotated[float, Field(gt=0, description="How far values may go from the old ones in an update.")] = 0.2
    value_learning_rate: Annotated[
        float | None,
        Field(
            gt=0, description="Peak learning rate of the value model. Default: the policy's. Set it with an adapter."
        ),
    ] = None
    value_weight: Annotated[float, Field(ge=0, description="Weight of the value model's loss.")] = 0.1
    value_from: Annotated[
        Literal["reward-model", "policy"],
        Field(description="What the value model starts from: the reward model, or the policy with a new head of 0."),
    ] = "reward-model"
    no_end: Annotated[
        float | None,
        Field(description="Score of an answer that does not end on its own. Default: as the rewards score it."),
    ] = -1.0
    scale_rewards: Annotated[
        bool, Field(description="Divide scores by the standard deviation of all scores so far.")
    ] = False
    ptx: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of the mixed data in the loss (PPO-ptx): their mean negative log-likelihood per token; "
            "0: off.",
        ),
    ] = 0.0
    ptx_rows: Annotated[
        int, Field(ge=1, description="Rows of the mixed data in an update, for each answer; InstructGPT had 8.")
    ] = 1
    runaway_value_loss: Annotated[
        float | None,
        Field(
            gt=1,
            description="Stop at once, with an error, if the value model's loss is more than so many times both what "
            "it was in the first step and what it would be if all values were 0.",
        ),
    ] = 100.0

    @property
    def mixed(self) -> int:
        return self.ptx_rows if self.ptx else 0

    @model_validator(mode="after")
    def _a_weight_can_follow(self) -> Self:
        if self.kl_target is not None and self.kl == 0:
            raise ValueError("train.kl_target is set, but train.kl is 0, and a weight of 0 stays 0. Set it to 0.05.")
        if self.kl_target is not None and self.kl_horizon < self.problems:
            raise ValueError(
                f"train.kl_horizon {self.kl_horizon} is too short: each step has {self.problems} answers or more, and "
                "the weight would jump. Raise it, to some twenty times as many."
            )
        return self


class JudgedBy(Config):
    """The rewards of a program that scores by itself: name and version of each, and how they are combined.

    Attributes:
        models: those that are models, by name, without jobs; a judge is at an endpoint.
    """

    graders: dict[str, str]
    models: Annotated[dict[str, RewardScoreProgram | DirectScoreProgram | JudgeProgram], Field(default_factory=dict)]
    combination: Combination | None
    isolation: Level
    workers: int
    max_error_share: float


class OnPolicyProgram(LaunchedProgram):
    """Configuration of the program `models.training.on_policy`.

    Attributes:
        policy: what the first step of this iteration starts from.
        reference: the policy that KL divergences are measured from.
        state: folder with the optimizer's state after the iteration before; None in the first.
        mix: rows to learn beside the answers; only for PPO-ptx.
        value, value_code: folder of what PPO's value model starts from, a reward model or a policy, and whether Python
            code in it may run.
        first_step: steps of earlier iterations.
        total_steps: of all iterations.
    """

    policy: Path
    model_code: ModelCode = "refuse"
    reference: Path
    state: Path | None
    problems: Path
    output: Path
    seed: int
    sampling: OnPolicySamplingConfig
    judged_by: JudgedBy
    engine: EngineConfig
    train: GroupsConfig | PPOConfig
    mix: Path | None = None
    value: Path | None = None
    value_code: ModelCode = "refuse"
    first_step: int
    total_steps: int
