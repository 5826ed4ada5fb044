"""The settings of loops that learn a reward model from pairs and a policy from it by PPO, and the stages before PPO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from models.config import RewardTrainConfig, ScoringConfig, TrainConfig
from models.on_policy import PPOConfig
from tasks.datasets.demonstrations import MIX, check_demonstrations, demonstration_examples
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.select import EXAMPLES
from tasks.policies.train import train_reward_model
from tasks.rollouts.learn import check_scored_in_the_program
from tasks.rollouts.rewards import MODELLED, RewardConfig, reward_inputs
from tasks.rollouts.trained_reward import measure_reward_model, require_preference, require_tokens_of
from tasks.settings.demonstrated import Demonstrated
from tasks.settings.on_policy import OnPolicyLoopConfig
from tasks.stage.contract import Artifact
from tasks.stage.launch import Training
from tasks.stage.run import Place, Run


class OptimizedRewardConfig(RewardConfig):
    """The reward: a reward model, unless another is named."""

    name: Annotated[str, Field(description="What scores answers; a reward model without a path is learned here.")] = (
        MODELLED
    )


class PPOLoopConfig(Demonstrated, OnPolicyLoopConfig):
    """Settings that every such loop has. Defaults: the N+ implementation details of RLHF (arXiv 2403.17031)."""

    mix: Annotated[
        Path | None,
        Field(
            description="Data set of texts or gold answers, in any known format, whose likelihood PPO keeps up, with "
            "weight train.ptx. Default: the demonstrations."
        ),
    ] = None
    held_out_pairs: Annotated[
        float, Field(gt=0, lt=1, description="Share of the prompts whose pairs are measured and not learned.")
    ] = 0.1
    forced: Annotated[
        bool, Field(description="Go on with a reward model that may prefer nothing: its accuracy may be 50 %.")
    ] = False
    reward: Annotated[OptimizedRewardConfig, Field(description="The reward: what scores answers.")] = (
        OptimizedRewardConfig(parts={}, options={})
    )
    reward_train: Annotated[RewardTrainConfig, Field(description="How the reward model is trained on pairs.")] = (
        RewardTrainConfig()
    )
    train: Annotated[PPOConfig, Field(description="How the policy is trained.")] = PPOConfig()

    @property
    def measured_by(self) -> RewardConfig:
        """What judges answers to held-out problems: a verifier, and not what is optimized."""
        return self.evaluate.reward or RewardConfig(parts={}, options={})

    @property
    def makes_reward_model(self) -> bool:
        """Whether the reward model is learned in the run."""
        return MODELLED in self.reward.names and self.reward.model.path is None

    @property
    def ready_rewards(self) -> tuple[RewardConfig, ...]:
        reward = self.reward.without(MODELLED) if self.makes_reward_model else self.reward
        return (self.measured_by,) if reward is None else (reward, self.measured_by)

    @property
    def trained(self) -> dict[str, TrainConfig]:
        first: dict[str, TrainConfig] = {} if self.demonstrations is None else {"sft_train": self.sft_train}
        return first | super().trained | ({"reward_train": self.reward_train} if self.makes_reward_model else {})

    def input_files(self) -> dict[str, Path]:
        named = {"demonstrations": self.demonstrations, "mix": self.mix}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    def check_inputs(self) -> None:
        super().check_inputs()
        if self.demonstrations is not None:
            check_demonstrations(self, self.shown(self.demonstrations))
        if self.mix is not None:
            check_demonstrations(self, self.shown(self.mix, longest=self.row_tokens))
        others = self.reward.without(MODELLED)
        if others is not None:
            check_scored_in_the_program(others)
        if MODELLED in self.reward.names and not self.makes_reward_model and self.train.value_from == "reward-model":
            require_tokens_of(policy_tokenizer(self).tokenizer, self.reward.model)

    @model_validator(mode="after")
    def _something_is_mixed(self) -> Self:
        if self.mix is not None and self.train.ptx == 0:
            raise ValueError(
                "mix is set, but its weight, train.ptx, is 0. Set it, to 1 for instance, or leave out mix."
            )
        if self.train.ptx and self.mix is None and self.demonstrations is None:
            raise ValueError("train.ptx is set, but there is nothing to mix in. Set mix or demonstrations.")
        if self.train.ptx and self.generate.temperature != 1:
            raise ValueError(
                f"train.ptx needs generate.temperature 1, since the likelihood of mixed data is that at 1, but it is "
                f"{self.generate.temperature:g}. Change one of them."
            )
        return self


def mixed(run: Run, config: PPOLoopConfig, start: Artifact, unseen: Mapping[str, Artifact]) -> Artifact | None:
    """The rows that PPO learns beside its answers, if there are any.

    Args:
        unseen: sets of problems whose prompts may not be learned, by name.
    """
    source = config.mix or config.demonstrations
    if not config.train.ptx or source is None:
        return None
    given = config.shown(source, unseen, config.row_tokens)
    return demonstration_examples(run.place(MIX), given, start).artifact(EXAMPLES)


def reward_from(
    at: Place, config: PPOLoopConfig, start: Artifact, pairs: Artifact, unseen: Artifact
) -> Mapping[str, Artifact]:
    """Learn a reward model from pairs, starting from the policy, and refuse one that prefers nothing.

    Args:
        unseen: held-out pairs.

    Returns:
        All models that score, by the name of their reward.
    """
    model = train_reward_model(at, start, pairs, Training(config.reward_train, config.launch), unseen)
    reward = model.artifact("policy")
    scoring = ScoringConfig(batch_tokens=config.reward.model.batch_tokens, dtype=config.reward.model.dtype)
    require_preference(measure_reward_model(at, reward, unseen, scoring), config.forced)
    return reward_inputs(at.run, config.reward, made=(MODELLED,)) | {MODELLED: reward}
