"""DPO (arXiv 2305.18290): a model learns from pairs of a better and a worse answer, with itself as reference.

Defaults are TRL's recipe for Llama 2, QLoRA on q and v. Start from an SFT policy: `--model runs/<run>/best/policy`.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from prefect import flow
from pydantic import Field

from data.preferences import read_pairs
from data.reading import Reading, Tally
from data.splits import HELD_OUT
from models.config import Optimizer, PreferenceConfig, QLoRAConfig, Schedule
from tasks.contract import OnDrift
from tasks.datasets import expected_rows
from tasks.likelihood import measure_reference
from tasks.loop import LoopConfig, add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.pairs import PairSource, prepare_pairs
from tasks.policy import base_policy
from tasks.problems import prepare_problems
from tasks.run import Run
from tasks.train import train_on_pairs


class DPOTrainConfig(PreferenceConfig):
    """Training as in TRL's recipe for Llama 2."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 5e-4
    epochs: Annotated[float, Field(gt=0, description="Passes over the pairs.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Pairs per optimiser step, over all devices.")] = 16
    optimizer: Annotated[Optimizer, Field(description="Optimiser.")] = "adamw"
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 0.05
    adapter: Annotated[QLoRAConfig | None, Field(description="The adapter; none: train all weights.")] = QLoRAConfig()


class DPO(PairSource, LoopConfig):
    """Every setting of DPO. Defaults are TRL's recipe for Llama 2."""

    answers_training_prompts: ClassVar[bool] = False

    train: Annotated[DPOTrainConfig, Field(description="How the policy is trained.")] = DPOTrainConfig()

    def input_files(self) -> dict[str, Path]:
        return super().input_files() | {"pairs": self.pairs}

    @property
    def pairs_reading(self) -> Reading:
        drop, keep = self.unusable == "drop", self.reasoning == "keep"
        return Reading(self.pairs, self.pairs_format, self.pairs_columns, drop, self.placeholders, keep)

    def check_inputs(self) -> None:
        for _ in read_pairs(self.pairs_reading, Tally()):
            pass


@flow(name="dpo", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def dpo(config: DPO, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run DPO, or go on where an earlier start of the same run stopped."""
    return run_loop("DPO", loop, config, on_drift)


def loop(run: Run, config: DPO) -> dict[str, Any]:
    """The algorithm. Walked without effect when `run` is only planning."""
    problems = prepare_problems(run, config, config.seed)
    base = base_policy(run, config, config.bootstrap, config.seed)
    iterations, start = begin(run, config, problems, base), base.artifact("policy")
    measured_on = config.held_out(problems, "validation", "test", "transfer")
    held_out = {name: measured.problems for name, measured in measured_on.items()}
    if config.overlap.held_out:
        held_out[HELD_OUT] = problems.artifact(f"{HELD_OUT}.parquet")
    made = prepare_pairs(run, "iter-1/pairs", config.pairs_reading, start, held_out, config.overlap.rules)
    pairs, expected = {"current": made.artifact("pairs.parquet")}, expected_rows(config.pairs, "train")
    reference = measure_reference(run, "iter-1/reference", start, pairs, config.train, config.launch, expected)
    policy = train_on_pairs(
        run, "iter-1/train", start, pairs, reference, config.train, config.launch, config.seed, expected
    )
    stages = {"pairs": made, "reference": reference, "train": policy}
    add_iteration(run, config, problems, iterations, policy, stages)
    return conclude(run, config, problems, iterations, "it has one iteration", best=1)
