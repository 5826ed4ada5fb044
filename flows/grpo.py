"""GRPO and its kin: a policy learns from groups of its own fresh answers, step after step.

Each step samples a group of answers to each of some problems, scores them, and moves the policy toward the answers that
are better than their group. Defaults are DAPO's (arXiv 2503.14476); by `train.advantage` and `train.normalizer` it is
GRPO (arXiv 2402.03300), Dr. GRPO (arXiv 2503.20783) or RLOO (arXiv 2402.14740).
"""

from typing import Annotated, Any, ClassVar, Self

from prefect import flow
from pydantic import Field, model_validator

from data.measures import MeasureName
from models.on_policy import OnPolicyConfig, OnPolicyEngineConfig, OnPolicyLaunchConfig, OnPolicySamplingConfig
from tasks.datasets.problems import prepare_problems
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.rollouts.learn import Learning, check_scored_in_the_program, end_by_kl, learn
from tasks.settings.leading import MACHINE, PROBLEMS, START
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.run import Run


class GRPO(LoopConfig):
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
    measures: ClassVar[tuple[MeasureName, ...]] = ("sampled_accuracy", "accuracy")

    iterations: Annotated[int, Field(ge=1, description="Iterations; the policy is measured after each.")] = 4
    generate: Annotated[OnPolicySamplingConfig, Field(description="How groups of answers are drawn.")] = (
        OnPolicySamplingConfig()
    )
    engine: Annotated[OnPolicyEngineConfig, Field(description="How vLLM runs.")] = OnPolicyEngineConfig()
    launch: Annotated[OnPolicyLaunchConfig, Field(description="How training runs.")] = OnPolicyLaunchConfig()
    train: Annotated[OnPolicyConfig, Field(description="How the policy is trained.")] = OnPolicyConfig()

    def learning(self, reference: Artifact) -> Learning:
        """Settings of the stages that learn."""
        told = self.train, self.generate, self.reward, self.engine, self.launch
        return Learning(*told, reference, self.iterations)

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        train, samples = self.train, self.generate.samples
        if train.problems * samples % train.batch_size:
            raise ValueError(
                f"A step has train.problems × generate.samples = {train.problems} × {samples} = "
                f"{train.problems * samples} answers, which is not a multiple of train.batch_size, {train.batch_size}. "
                "Change one of the three."
            )
        if train.problems % self.launch.processes:
            raise ValueError(
                f"train.problems is {train.problems}, not a multiple of launch.processes, {self.launch.processes}, "
                "over which they are spread. Change one of them."
            )
        if train.overlong >= self.generate.max_tokens:
            raise ValueError(
                f"train.overlong is {train.overlong}, but generate.max_tokens is {self.generate.max_tokens}: even "
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
    measuring, iterations = begin(run, config, problems, base)
    how, policy, reason = config.learning(base.artifact("policy")), base, None
    for number in range(1, config.iterations + 1):
        policy = learn(run.iteration(number), number, policy, problems.artifact("train.parquet"), how)
        reason = add_iteration(measuring, iterations, policy, {"train": policy}) or end_by_kl(policy, config.train)
        if reason:
            break
    return conclude(measuring, iterations, reason)
