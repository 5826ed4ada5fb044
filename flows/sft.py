"""SFT: a model learns gold answers.

Defaults are TRL's recipe for Llama 2, QLoRA (arXiv 2305.14314) on q and v. The result is merged, so
`--model runs/<run>/best/policy` starts any other flow from it.
"""

from typing import Annotated, Any, ClassVar

from prefect import flow
from pydantic import Field

from data.measures import MeasureName
from models.adapters.settings import QLoRAConfig
from models.config import Schedule, SupervisedConfig
from tasks.datasets.gold_examples import gold_examples
from tasks.datasets.problems import prepare_problems
from tasks.datasets.select import EXAMPLES
from tasks.loop.loop import add_iteration, begin, conclude, flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.train import train
from tasks.settings.leading import MACHINE, PROBLEMS, START, TRAINING
from tasks.settings.loop import GoldLoopConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run


class SFTTrainConfig(SupervisedConfig):
    """Training as in TRL's recipe for Llama 2."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-4
    epochs: Annotated[float, Field(gt=0, description="Passes over the examples.")] = 1.0
    batch_size: Annotated[int, Field(ge=1, description="Rows per optimizer step, over all devices.")] = 8
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="Decoupled weight decay.")] = 0.05
    pack_to: Annotated[
        int | None,
        Field(ge=16, description="Pack short examples into rows of this many tokens; if not set, a row each."),
    ] = 1024
    adapter: Annotated[QLoRAConfig | None, Field(description="The adapter; none trains all weights.")] = QLoRAConfig()


class SFT(GoldLoopConfig):
    """Every setting of supervised fine-tuning. Defaults are TRL's recipe for Llama 2."""

    leading_settings = (
        *START,
        *PROBLEMS,
        "template",
        *TRAINING,
        "train.pack_to",
        "train.loss_on",
        "train.adapter.rank",
        "train.adapter.quantize",
        "verify",
        "reward.name",
        "generate.max_tokens",
        "evaluate.samples",
        *MACHINE,
    )
    answers_training_prompts: ClassVar[bool] = False
    measures: ClassVar[tuple[MeasureName, ...]] = ("loss", "accuracy")

    train: Annotated[SFTTrainConfig, Field(description="How the policy is trained.")] = SFTTrainConfig()


@flow(name="sft", description=__doc__, flow_run_name=flow_run_name, persist_result=False, validate_parameters=True)
def sft(config: SFT, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Run SFT, or continue where an earlier start of the same run stopped."""
    return run_loop("SFT", loop, config, on_drift)


def loop(run: Run, config: SFT) -> dict[str, Any]:
    """The algorithm. Has no effect when `run` is only planning."""
    problems, base = prepare_problems(run, config), base_policy(run, config)
    measuring, iterations = begin(run, config, problems, base)
    at, start = run.place("iter-1"), base.artifact("policy")
    gold = gold_examples(at, problems.artifact("train.parquet"), start, config.train.pack_to)
    policy = train(at, start, gold.artifact(EXAMPLES), config.training, measuring.gold.get("validation"))
    add_iteration(measuring, iterations, policy, {"examples": gold, "train": policy})
    return conclude(measuring, iterations, "it has one iteration", best=1)
