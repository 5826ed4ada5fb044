"""SPIN (arXiv 2401.01335): a policy learns to tell gold answers from its own, and becomes its next opponent.

The opponent is the last policy. It answers the prompts of the SFT data. Training starts from the opponent, with it as
the reference, and prefers gold answers to the opponent's. Repeat.
"""

from typing import Annotated, Any, ClassVar, Self

from annotated_types import Gt, MinLen
from prefect import flow
from pydantic import Field, field_validator, model_validator

from data.measures import MeasureName
from models.config import PreferenceConfig, SamplingConfig
from tasks.datasets.pairs import PAIRS_FILE, pair, pair_held_out
from tasks.datasets.problems import prepare_problems
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.reference import measure_reference
from tasks.policies.train import train_on_pairs
from tasks.rollouts.generate import SAMPLES, generate
from tasks.settings.leading import MACHINE, PROBLEMS, START, TRAINING
from tasks.settings.loop import GoldLoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.launch import Training
from tasks.stage.run import Run

Positive = Annotated[float, Gt(0)]
PerIteration = Positive | Annotated[tuple[Positive, ...], MinLen(1)]
PER_ITERATION = ("learning_rate", "beta", "epochs")


class SpinTrainConfig(PreferenceConfig):
    """Training of one iteration. Settings that the paper changes between iterations are one number or a list."""

    learning_rate: Annotated[PerIteration, Field(description="Peak learning rate.")] = (5e-7, 5e-7, 1e-7, 1e-7)  # type: ignore[assignment]
    beta: Annotated[PerIteration, Field(description="Scale of the log-ratios; λ in the paper.")] = (0.1, 0.1, 0.1, 5.0)  # type: ignore[assignment]
    epochs: Annotated[PerIteration, Field(description="Passes over the pairs.")] = 2.0  # type: ignore[assignment]

    @field_validator(*PER_ITERATION)
    @classmethod
    def _one_number_is_for_all(cls, values: float | tuple[float, ...]) -> float | tuple[float, ...]:
        """The command line gives a single number as a list of one."""
        return values[0] if isinstance(values, tuple) and len(values) == 1 else values

    def at(self, iteration: int) -> PreferenceConfig:
        """The settings of an iteration; the first is 1."""
        values = self.model_dump()
        for name in PER_ITERATION:
            if isinstance(values[name], tuple):
                values[name] = values[name][iteration - 1]
        return PreferenceConfig(**values)


class SpinSamplingConfig(SamplingConfig):
    """How the opponent answers: once, from its full distribution."""

    samples: Annotated[int, Field(ge=1, description="The opponent's answers per prompt.")] = 1
    temperature: Annotated[float, Field(ge=0, description="Sampling temperature; 0 is greedy.")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="Sample from the k most likely tokens; 0: from all.")] = 0


class Spin(GoldLoopConfig):
    """Every setting of a SPIN run. Defaults are the paper's."""

    leading_settings = (
        *START,
        *PROBLEMS,
        "iterations",
        "generate.temperature",
        "generate.max_tokens",
        *TRAINING,
        "train.beta",
        "mix_previous",
        "verify",
        "reward.name",
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )
    has_opponent: ClassVar[bool] = True
    measures: ClassVar[tuple[MeasureName, ...]] = ("win_rate", "accuracy")

    iterations: Annotated[int, Field(ge=1, description="Most iterations.")] = 4
    mix_previous: Annotated[
        bool, Field(description="Also train on the pairs of the previous iteration, if there is one.")
    ] = True
    generate: Annotated[SpinSamplingConfig, Field(description="How the opponent answers.")] = SpinSamplingConfig()
    train: Annotated[SpinTrainConfig, Field(description="How the policy is trained.")] = SpinTrainConfig()

    @model_validator(mode="after")
    def _lists_cover_the_iterations(self) -> Self:
        for name in PER_ITERATION:
            values = getattr(self.train, name)
            if isinstance(values, tuple) and len(values) < self.iterations:
                raise ValueError(
                    f"train.{name} has {len(values)} values for {self.iterations} iterations. Give one for each, or "
                    f"one number for all."
                )
        return self


@flow(name="spin", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def spin(config: Spin, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run SPIN, or continue where an earlier start of the same run stopped."""
    return run_loop("SPIN", loop, config, on_drift)


def loop(run: Run, config: Spin) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems, base = prepare_problems(run, config), base_policy(run, config)
    measuring, iterations = begin(run, config, problems, base)
    prompts, tokenizer, most = problems.artifact("train.parquet"), base.artifact("policy"), config.generate.max_tokens
    unseen = {name: gold for name, gold in measuring.gold.items() if name == "validation"}
    policy, reason = base, None
    pairs: dict[str, Artifact] = {}
    for number in range(1, config.iterations + 1):
        at, opponent = run.iteration(number), policy.artifact("policy")
        training = Training(config.train.at(number), config.launch)
        sampled = generate(at, opponent, {SAMPLES: prompts, **unseen}, config.sampling)
        made = pair(at, prompts, sampled.artifact(SAMPLES), tokenizer, most)
        before = {"previous": pairs["current"]} if pairs and config.mix_previous else {}
        pairs = {"current": made.artifact(PAIRS_FILE), **before}
        held_out = pair_held_out(at, unseen, sampled, tokenizer, most)
        reference = measure_reference(at, opponent, pairs | held_out, training)
        told_apart = {name: reference.measured(name, sampled.artifact(name)) for name in held_out}
        learned = {name: reference.measured(name) for name in pairs}
        policy = train_on_pairs(at, opponent, learned, training, told_apart.get("validation"))
        stages = {"generate": sampled, "pair": made, "reference": reference.stage, "train": policy}
        if reason := add_iteration(measuring, iterations, policy, stages, told_apart):
            break
    return conclude(measuring, iterations, reason)
