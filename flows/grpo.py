"""GRPO and its kin: a policy learns from groups of its own fresh answers, step after step.

Each step samples a group of answers to each of some problems, scores them, and moves the policy toward the answers that
are better than their group. Defaults are DAPO's (arXiv 2503.14476); by `train.advantage` and `train.normalizer` it is
GRPO (arXiv 2402.03300), Dr. GRPO (arXiv 2503.20783) or RLOO (arXiv 2402.14740).
"""

from typing import Annotated, Any, Self

from prefect import flow
from pydantic import Field, model_validator

from models.on_policy import GroupSamplingConfig, GroupsConfig
from tasks.datasets.problems import prepare_problems
from tasks.loop.loop import flow_run_name, run_loop
from tasks.loop.on_policy import optimize
from tasks.policies.base import base_policy
from tasks.rollouts.learn import check_scored_in_the_program
from tasks.rollouts.rewards import reward_inputs
from tasks.settings.leading import MACHINE, PROBLEMS, START
from tasks.settings.on_policy import OnPolicyLoopConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run


class GRPO(OnPolicyLoopConfig):
    """Every setting of a GRPO run. Defaults are DAPO's, for fewer and shorter answers."""

    leading_settings = (
        *START,
        *PROBLEMS,
        "iterations",
        "train.steps",
        "train.problems",
        "generate.samples",
        "generate.max_tokens",
        "reward.name",
        "train.learning_rate",
        "train.batch_size",
        "train.advantage",
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )

    generate: Annotated[GroupSamplingConfig, Field(description="How groups of answers are drawn.")] = (
        GroupSamplingConfig()
    )
    train: Annotated[GroupsConfig, Field(description="How the policy is trained.")] = GroupsConfig()

    @model_validator(mode="after")
    def _some_answers_keep_their_reward(self) -> Self:
        if self.train.overlong >= self.generate.max_tokens:
            raise ValueError(
                f"train.overlong is {self.train.overlong}, but generate.max_tokens is {self.generate.max_tokens}: even "
                "the shortest answers would lose reward. Lower it."
            )
        return self

    def check_inputs(self) -> None:
        super().check_inputs()
        check_scored_in_the_program(self.reward)


@flow(name="grpo", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def grpo(config: GRPO, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run GRPO, or continue where an earlier start of the same run stopped."""
    return run_loop("GRPO", loop, config, on_drift)


def loop(run: Run, config: GRPO) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems, base = prepare_problems(run, config), base_policy(run, config)
    how = config.learning(base.artifact("policy"), reward_inputs(run, config.reward))
    return optimize(run, config, problems, base, how)
