"""ReST-EM (arXiv 2312.06585): a policy learns from its own correct answers.

E-step: sample answers from the current policy, keep the correct and distinct ones, a few per problem.
M-step: fine-tune the base model on them by reward-weighted negative log-likelihood. Repeat while validation improves.
"""

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from prefect import flow
from pydantic import Field, model_validator

from models.config import SamplingConfig, SupervisedConfig
from tasks.datasets.problems import prepare_problems
from tasks.datasets.select import EXAMPLES, SelectConfig, select
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.train import train
from tasks.rollouts.generate import SAMPLES, Sampling, generate
from tasks.rollouts.score import SCORES, score
from tasks.settings.leading import MACHINE, PROBLEMS, START, TRAINING
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run


class RestEMSamplingConfig(SamplingConfig):
    """How the E-step draws answers."""

    until_kept: Annotated[
        bool,
        Field(
            description="Stop sampling a problem once select.max_per_problem distinct correct answers are there. The "
            "same answers are selected; those not needed are not drawn. For final_answer and program."
        ),
    ] = False


class RestEM(LoopConfig):
    """Every setting of a ReST-EM run. Defaults are the paper's; where it gives none, those of VinePPO's rerun."""

    leading_settings = (
        *START,
        *PROBLEMS,
        "iterations",
        "generate.samples",
        "generate.temperature",
        "generate.max_tokens",
        "reward.name",
        "select.max_per_problem",
        *TRAINING,
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )

    iterations: Annotated[int, Field(ge=1, description="Most iterations of E-step and M-step.")] = 3
    init: Annotated[
        Literal["base", "last", "champion"],
        Field(
            description="What each M-step starts from: the base model, or the last policy. champion: the registry's "
            "champion is the base, if there is one."
        ),
    ] = "base"  # type: ignore[assignment]
    generate: Annotated[RestEMSamplingConfig, Field(description="How answers are sampled.")] = RestEMSamplingConfig()
    train: Annotated[SupervisedConfig, Field(description="How the policy is trained.")] = SupervisedConfig()
    select: Annotated[SelectConfig, Field(description="Which answers to train on.")] = SelectConfig()

    @property
    def sampling(self) -> Sampling:
        how = SamplingConfig.model_validate(self.generate.model_dump(exclude={"until_kept"}))
        return Sampling(how, self.engine)

    @property
    def drawing(self) -> Sampling:
        """How the E-step draws answers."""
        return replace(self.sampling, until=self.select if self.generate.until_kept else None)

    @model_validator(mode="after")
    def _correct_answers_are_all_worth_the_same(self) -> Self:
        if self.generate.until_kept and (self.reward.parts or self.reward.name not in ("final_answer", "program")):
            names = " + ".join(self.reward.names)
            raise ValueError(
                f"generate.until_kept takes the first correct answers, but the reward {names} may prefer later ones. "
                "Use reward.name: final_answer or program without reward.parts, or set generate.until_kept: false."
            )
        if self.generate.until_kept and not 0 < self.select.min_reward <= 1:
            raise ValueError(
                f"generate.until_kept counts correct answers, which have a reward of 1, but select.min_reward is "
                f"{self.select.min_reward:g}. Set it between 0 and 1, or set generate.until_kept: false."
            )
        return self


@flow(name="rest-em", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def rest_em(config: RestEM, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run ReST-EM, or continue where an earlier start of the same run stopped."""
    return run_loop("ReST-EM", loop, config, on_drift)


def loop(run: Run, config: RestEM) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems, base = prepare_problems(run, config), base_policy(run, config)
    measuring, iterations = begin(run, config, problems, base)
    train_set, start = problems.artifact("train.parquet"), base.artifact("policy")
    policy, reason = base, None
    for number in range(1, config.iterations + 1):
        at, current = run.iteration(number), policy.artifact("policy")
        sampled = generate(at, current, {SAMPLES: train_set}, config.drawing, config.reward)
        samples = sampled.artifact(SAMPLES)
        scored = score(at, train_set, samples, config.judging)
        chosen = select(at, train_set, samples, scored.artifact(SCORES), config.select)
        begun_from = current if config.init == "last" else start
        policy = train(at, begun_from, chosen.artifact(EXAMPLES), config.training)
        stages = {"generate": sampled, "score": scored, "select": chosen, "train": policy}
        if reason := add_iteration(measuring, iterations, policy, stages):
            break
    return conclude(measuring, iterations, reason)
