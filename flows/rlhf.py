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
from tasks.datasets.demonstrations import SFT
from tasks.datasets.pair_sets import PairSets, check_pair_sets, judged_length, measured_once, prepare_pair_sets
from tasks.datasets.pairs import PAIRS_FILE, PairFormat
from tasks.datasets.problems import prepare_problems
from tasks.loop.loop import flow_run_name, run_loop
from tasks.loop.on_policy import optimize
from tasks.policies.base import base_policy
from tasks.rollouts.rewards import MODELLED, reward_inputs
from tasks.rollouts.trained_reward import REWARD
from tasks.settings.demonstrated import demonstrated
from tasks.settings.leading import MACHINE, PROBLEMS, START
from tasks.settings.ppo import PPOLoopConfig, mixed, reward_from
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.run import Run

ONE_OF_TWO = (
    "Give either pairs to learn a reward model from, or reward.model.path: a finished one, such as "
    "runs/<run>/best/policy of reward-model."
)


class RLHF(PairFormat, PPOLoopConfig):
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

    @property
    def sets(self) -> PairSets:
        """Which pairs to train on, and which to hold out."""
        assert self.pairs is not None
        validation = self.pair_reading(self.validation_pairs) if self.validation_pairs else None
        return measured_once(self.pair_reading(self.pairs), validation, self.held_out_pairs, self.overlap.rules)

    def input_files(self) -> dict[str, Path]:
        named = {"pairs": self.pairs, "validation_pairs": self.validation_pairs}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    def check_inputs(self) -> None:
        super().check_inputs()
        if self.makes_reward_model and self.pairs is None:
            raise RewardError("There is no reward model.", what_next=ONE_OF_TWO)
        if self.pairs is not None:
            check_pair_sets(self.sets)

    @model_validator(mode="after")
    def _one_reward_model(self) -> Self:
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
    unseen = config.unseen(problems)
    base, _ = demonstrated(run.place(SFT), config, base_policy(run, config), unseen)
    start = base.artifact("policy")
    mix = mixed(run, config, start, unseen)
    scorers = reward_inputs(run, config.reward) if config.pairs is None else learned_reward(run, config, start)
    return optimize(run, config, problems, base, config.learning(start, scorers, mix))


def learned_reward(run: Run, config: RLHF, start: Artifact) -> Mapping[str, Artifact]:
    """Learn a reward model from the pairs."""
    at = run.place(REWARD)
    pairs = prepare_pair_sets(at, config.sets, start, judged_length, {})
    return reward_from(at, config, start, pairs.artifact(PAIRS_FILE), pairs.artifact(f"{HELD_OUT}.parquet"))
