"""DPO (arXiv 2305.18290): a model learns from pairs of a better and a worse answer, with itself as the reference.

Defaults are TRL's recipe for Llama 2, QLoRA on q and v. Start from an SFT policy: `--model runs/<run>/best/policy`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from prefect import flow
from pydantic import Field

from data.measures import MeasureName
from models.adapters.settings import QLoRAConfig
from models.config import Optimizer, PreferenceConfig, Schedule
from tasks.datasets.held_out import Measurable, measurable
from tasks.datasets.pair_sets import PairSets, answered_length, check_pair_sets, prepare_pair_sets, validated_and_tested
from tasks.datasets.pairs import PAIRS_FILE, PairSource
from tasks.datasets.problems import Judged, prepare_problems
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.reference import measure_reference
from tasks.policies.train import train_on_pairs
from tasks.settings.leading import MACHINE, START, TRAINING
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run


class DPOTrainConfig(PreferenceConfig):
    """Training as in TRL's recipe for Llama 2."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5e-4
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimizer step, over all devices.")] = 16
    optimizer: Annotated[Optimizer, Field(description="Optimizer.")] = "adamw"
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 0.05
    adapter: Annotated[QLoRAConfig | None, Field(description="The adapter; none trains all weights.")] = QLoRAConfig()


class DPO(PairSource, LoopConfig):
    """Every setting of DPO. Defaults are TRL's recipe for Llama 2."""

    leading_settings = (
        *START,
        "pairs",
        "validation_pairs",
        "test_pairs",
        "validation",
        "test",
        *TRAINING,
        "train.beta",
        "train.adapter.rank",
        "train.adapter.quantize",
        "reward.name",
        "generate.max_tokens",
        "evaluate.samples",
        *MACHINE,
    )
    trains_on_problems: ClassVar[bool] = False
    answers_training_prompts: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = True
    measures: ClassVar[tuple[MeasureName, ...]] = ("pair_accuracy",)

    validation_pairs: Annotated[
        Path | None,
        Field(description="Pairs to validate on; if not set, a tenth of the pairs, by hash of the prompt."),
    ] = None
    test_pairs: Annotated[
        Path | None, Field(description="Pairs for the final test; if not set, another tenth, by hash.")
    ] = None
    train: Annotated[DPOTrainConfig, Field(description="How the policy is trained.")] = DPOTrainConfig()

    @property
    def measurable(self) -> Measurable:
        return replace(measurable(self), gold=False)

    def measured_on(self) -> Judged:
        """Held-out problems serve only the win rate if answers to them cannot be graded."""
        rows = measurable(self)
        if rows.verified:
            return super().measured_on()
        return ("demonstrations" if rows.gold else "prompts"), None

    def input_files(self) -> dict[str, Path]:
        named = {"pairs": self.pairs, "validation_pairs": self.validation_pairs, "test_pairs": self.test_pairs}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    @property
    def sets(self) -> PairSets:
        """Which pairs to train on, and which to hold out."""
        training, *held_out = (
            None if path is None else self.pair_reading(path)
            for path in (self.pairs, self.validation_pairs, self.test_pairs)
        )
        assert training is not None
        return validated_and_tested(training, held_out[0], held_out[1], self.overlap.rules)

    def check_inputs(self) -> None:
        check_pair_sets(self.sets)


@flow(name="dpo", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def dpo(config: DPO, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run DPO, or continue where an earlier start of the same run stopped."""
    return run_loop("DPO", loop, config, on_drift)


def loop(run: Run, config: DPO) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems = prepare_problems(run, config) if config.has_problems else None
    base = base_policy(run, config)
    measuring, iterations = begin(run, config, problems, base)
    at, start, sets = run.place("iter-1"), base.artifact("policy"), config.sets
    made = prepare_pair_sets(at, sets, start, answered_length, measuring.held_out_prompts)
    pairs = {"current": made.artifact(PAIRS_FILE)} | {name: made.artifact(f"{name}.parquet") for name in sets.names}
    reference = measure_reference(at, start, pairs, config.training)
    learned, validation, test = (reference.measured(name) for name in ("current", "validation", "test"))
    policy = train_on_pairs(at, start, {"current": learned}, config.training, validation)
    stages = {"pairs": made, "reference": reference.stage, "train": policy}
    add_iteration(measuring, iterations, policy, stages, {"validation": validation})
    return conclude(measuring, iterations, "it has one iteration", best=1, pairs={"test": test})
