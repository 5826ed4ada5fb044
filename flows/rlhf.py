"""RLHF (arXiv 2203.02155): a reward model is learned from people's pairs, and a policy from the reward model, by PPO.

PPO starts from the model, or from what it learns from `demonstrations` first (SFT). The reward model is that of
`reward.model.path`, or is learned from `pairs`. PPO (arXiv 1707.06347) draws answers, scores them, and moves the policy
by what a value model did not expect, less a penalty on the divergence from the policy that it started from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from prefect import flow
from pydantic import Field, model_validator

from data.prepare.splits import HELD_OUT
from data.rewards import RewardError
from models.config import RewardTrainConfig, ScoringConfig, gradient_accumulation
from models.on_policy import PPOConfig
from tasks.datasets.demonstrations import MIX, SFT, check_demonstrations, demonstration_examples
from tasks.datasets.pair_sets import PairSets, check_pair_sets, judged_length, measured_once, prepare_pair_sets
from tasks.datasets.pairs import PAIRS_FILE, PairFormat
from tasks.datasets.problems import prepare_problems
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.datasets.select import EXAMPLES
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.train import train_reward_model
from tasks.rollouts.learn import check_scored_in_the_program, end_by_kl, learn
from tasks.rollouts.rewards import MODELLED, RewardConfig, reward_inputs
from tasks.rollouts.trained_reward import REWARD, measure_reward_model, require_preference, require_tokens_of
from tasks.settings.demonstrated import Demonstrated, demonstrated
from tasks.settings.leading import MACHINE, PROBLEMS, START
from tasks.settings.on_policy import OnPolicyLoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.launch import Training
from tasks.stage.run import Result, Run

ONE_OF_TWO = (
    "Give either pairs to learn a reward model from, or reward.model.path: a finished one, such as "
    "runs/<run>/best/policy of reward-model."
)


class OptimizedRewardConfig(RewardConfig):
    """The reward: a reward model, unless another is named."""

    name: Annotated[str, Field(description="What scores answers; a reward model without a path is learned here.")] = (
        MODELLED
    )


class RLHF(Demonstrated, PairFormat, OnPolicyLoopConfig):
    """Every setting of RLHF. Defaults are those of a re-implementation that is documented well (arXiv 2403.17031)."""

    leading_settings = (
        *START,
        "demonstrations",
        "pairs",
        "reward.model.path",
        *PROBLEMS,
        "iterations",
        "train.steps",
        "train.problems",
        "generate.max_tokens",
        "train.learning_rate",
        "train.kl",
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )

    mix: Annotated[
        Path | None,
        Field(
            description="Data set of texts or gold answers, in any known format, whose likelihood PPO keeps up, with "
            "weight train.ptx. Default: the demonstrations."
        ),
    ] = None
    pairs: Annotated[
        Path | None, Field(description="Data set of pairs, in any known format, to learn a reward model from.")
    ] = None
    validation_pairs: Annotated[
        Path | None, Field(description="Pairs to measure it on; if not set, a share of the pairs is held out.")
    ] = None
    held_out_pairs: Annotated[
        float,
        Field(gt=0, lt=1, description="That share, by hash of the prompt, so adding rows moves no other row."),
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
    def ready_rewards(self) -> tuple[RewardConfig, ...]:
        there = self.pairs is None and self.reward.model.path is not None
        reward = self.reward if there else self.reward.without(MODELLED)
        return (self.measured_by,) if reward is None else (reward, self.measured_by)

    @property
    def sets(self) -> PairSets:
        """Which pairs to train on, and which to hold out."""
        assert self.pairs is not None
        validation = self.pair_reading(self.validation_pairs) if self.validation_pairs else None
        return measured_once(self.pair_reading(self.pairs), validation, self.held_out_pairs, self.overlap.rules)

    def input_files(self) -> dict[str, Path]:
        named = {"pairs": self.pairs, "validation_pairs": self.validation_pairs}
        named |= {"demonstrations": self.demonstrations, "mix": self.mix}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    def check_inputs(self) -> None:
        super().check_inputs()
        others = self.reward.without(MODELLED)
        if MODELLED in self.reward.names and self.pairs is None and self.reward.model.path is None:
            raise RewardError("There is no reward model.", what_next=ONE_OF_TWO)
        if self.demonstrations is not None:
            check_demonstrations(self, self.shown(self.demonstrations))
        if self.mix is not None:
            check_demonstrations(self, self.shown(self.mix, longest=self.row_tokens))
        if self.pairs is not None:
            check_pair_sets(self.sets)
        elif MODELLED in self.reward.names and self.train.value_from == "reward-model":
            require_tokens_of(policy_tokenizer(self).tokenizer, self.reward.model)
        if others is not None:
            check_scored_in_the_program(others)

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

    @model_validator(mode="after")
    def _one_reward_model(self) -> Self:
        gradient_accumulation(self.reward_train, self.launch, "reward_train")
        if self.demonstrations is not None:
            gradient_accumulation(self.sft_train, self.launch, "sft_train")
        if MODELLED not in self.reward.names:
            if self.pairs is not None or self.train.value_from == "reward-model":
                raise ValueError(
                    f"The rewards are {', '.join(self.reward.names)}, and none is a reward model. Add reward-model to "
                    "reward.parts, or leave out the pairs and set train.value_from to policy."
                )
        elif self.pairs is not None and self.reward.model.path is not None:
            raise ValueError(ONE_OF_TWO)
        return self


@flow(name="rlhf", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def rlhf(config: RLHF, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run RLHF, or continue where an earlier start of the same run stopped."""
    return run_loop("RLHF", loop, config, on_drift)


def loop(run: Run, config: RLHF) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems = prepare_problems(run, config)
    base, _ = demonstrated(run.place(SFT), config, base_policy(run, config), config.unseen(problems))
    start = base.artifact("policy")
    mix = mixed(run, config, start, problems)
    scorers = reward_inputs(run, config.reward) if config.pairs is None else learned_reward(run, config, start)
    measuring, iterations = begin(run, config, problems, base, config.proxy(scorers, problems))
    how, policy, reason = config.learning(start, scorers, mix), base, None
    for number in range(1, config.iterations + 1):
        policy = learn(run.iteration(number), number, policy, problems.artifact("train.parquet"), how)
        reason = add_iteration(measuring, iterations, policy, {"train": policy}) or end_by_kl(policy, config.train)
        if reason:
            break
    return conclude(measuring, iterations, reason)


def mixed(run: Run, config: RLHF, start: Artifact, problems: Result) -> Artifact | None:
    """The rows that PPO learns beside its answers, if there are any."""
    source = config.mix or config.demonstrations
    if not config.train.ptx or source is None:
        return None
    given = config.shown(source, config.unseen(problems), config.row_tokens)
    return demonstration_examples(run.place(MIX), given, start).artifact(EXAMPLES)


def learned_reward(run: Run, config: RLHF, start: Artifact) -> Mapping[str, Artifact]:
    """Learn a reward model from the pairs, starting from the policy, and refuse one that prefers nothing."""
    at = run.place(REWARD)
    pairs = prepare_pair_sets(at, config.sets, start, judged_length, {})
    unseen, training = pairs.artifact(f"{HELD_OUT}.parquet"), Training(config.reward_train, config.launch)
    model = train_reward_model(at, start, pairs.artifact(PAIRS_FILE), training, unseen).artifact("policy")
    scoring = ScoringConfig(batch_tokens=config.reward.model.batch_tokens, dtype=config.reward.model.dtype)
    require_preference(measure_reward_model(at, model, unseen, scoring), config.forced)
    return {MODELLED: model}
