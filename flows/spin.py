"""SPIN (arXiv 2401.01335): a policy learns to tell gold answers from its own, and becomes its next opponent.

The opponent, which is the last policy, answers the prompts of the SFT data. Training prefers the gold answers to its
own, starts from the opponent and has it as reference. Repeat.
"""

from typing import Annotated, Any, ClassVar, Self

from annotated_types import Gt, MinLen
from prefect import flow
from pydantic import Field, field_validator, model_validator

from data.measures import MeasureName
from models.config import PreferenceConfig, SamplingConfig
from tasks.datasets.pairs import pair
from tasks.datasets.problems import prepare_problems
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.reference import measure_reference
from tasks.policies.train import train_on_pairs
from tasks.rollouts.generate import generate
from tasks.rollouts.opponent import against_opponent, held_out_pairs
from tasks.settings.loop import GoldLoopConfig
from tasks.stage.contract import Artifact, OnDrift
from tasks.stage.run import Run

Positive = Annotated[float, Gt(0)]
PerIteration = Positive | Annotated[tuple[Positive, ...], MinLen(1)]
PER_ITERATION = ("learning_rate", "beta", "epochs")


class SpinTrainConfig(PreferenceConfig):
    """Training of one iteration; what the paper changes from one to the next is a number or a list of numbers."""

    learning_rate: Annotated[PerIteration, Field(description="Peak learning rate.")] = (5e-7, 5e-7, 1e-7, 1e-7)  # type: ignore[assignment]
    beta: Annotated[PerIteration, Field(description="Scale of the log-ratios; λ in the paper.")] = (0.1, 0.1, 0.1, 5.0)  # type: ignore[assignment]
    epochs: Annotated[PerIteration, Field(description="Passes over the pairs.")] = 2.0  # type: ignore[assignment]

    @field_validator(*PER_ITERATION)
    @classmethod
    def _one_number_is_for_all(cls, values: float | tuple[float, ...]) -> float | tuple[float, ...]:
        """On the command line a number comes as a list of one."""
        return values[0] if isinstance(values, tuple) and len(values) == 1 else values

    def at(self, iteration: int) -> PreferenceConfig:
        """The settings of an iteration; the first is 1."""
        values = self.model_dump()
        for name in PER_ITERATION:
            if isinstance(values[name], tuple):
                values[name] = values[name][iteration - 1]
        return PreferenceConfig(**values)


class SpinSamplingConfig(SamplingConfig):
    """How the opponent answers: once, from its whole distribution."""

    samples: Annotated[int, Field(ge=1, description="Own answers per prompt.")] = 1
    temperature: Annotated[float, Field(ge=0, description="0 is greedy.")] = 1.0
    top_k: Annotated[int, Field(ge=0, description="Sample from this many most likely tokens; 0 is all.")] = 0


class Spin(GoldLoopConfig):
    """Every setting of a SPIN run. Defaults are the paper's."""

    has_opponent: ClassVar[bool] = True
    measures: ClassVar[tuple[MeasureName, ...]] = ("win_rate", "accuracy")

    iterations: Annotated[int, Field(ge=1, description="Most iterations.")] = 4
    mix_previous: Annotated[
        bool, Field(description="Train on the pairs of the iteration before as well, where there is one.")
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
    """Run SPIN, or go on where an earlier start of the same run stopped."""
    return run_loop("SPIN", loop, config, on_drift)


def loop(run: Run, config: Spin) -> dict[str, Any]:
    """The algorithm. Walked without effect when `run` is only planning."""
    problems = prepare_problems(run, config, config.seed)
    prompts, expected = problems.artifact("train.parquet"), config.expected_problems["train"]
    base = base_policy(run, config, config.bootstrap, config.seed)
    measuring, iterations = begin(run, config, problems, base)
    unseen = measuring.gold.get("validation")
    also = {"validation": unseen.problems} if unseen else {}
    policy, reason = base, None
    pairs: dict[str, Artifact] = {}
    for number in range(1, config.iterations + 1):
        name, seed, settings = f"iter-{number}", config.seed + number, config.train.at(number)
        opponent, sampling = policy.artifact("policy"), (config.generate, config.engine)
        samples = generate(run, f"{name}/generate", opponent, prompts, *sampling, seed, expected, also=also)
        answers, tokenizer, most = samples.artifact("samples"), base.artifact("policy"), config.generate.max_tokens
        count = expected * config.generate.samples
        made = pair(run, f"{name}/pair", prompts, answers, tokenizer, most, count)
        before = {"previous": pairs["current"]} if pairs and config.mix_previous else {}
        pairs = {"current": made.artifact("pairs.parquet"), **before}
        count *= len(pairs)
        apart = held_out_pairs(run, name, samples, also, tokenizer, most)
        training = settings, config.launch
        reference = measure_reference(run, f"{name}/reference", opponent, pairs | apart, *training, count)
        game = against_opponent(apart, samples, reference, settings, unseen)
        policy = train_on_pairs(
            run, f"{name}/train", opponent, pairs, reference, *training, seed, count, held_out=game.get("validation")
        )
        stages = {"generate": samples, "pair": made, "reference": reference, "train": policy}
        if reason := add_iteration(measuring, iterations, policy, stages, game):
            break
    return conclude(measuring, iterations, reason)
