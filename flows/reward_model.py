"""A reward model (arXiv 2203.02155, section 3.5): a policy learns from pairs to score answers.

Held-out pairs measure how often it prefers the chosen answer, its calibration, and its length bias. Start from an SFT
policy: `--model runs/<run>/best/policy`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from data.prepare.hygiene import NAME
from data.prepare.splits import HELD_OUT
from models.config import ReasoningSetting, RewardTrainConfig, ScoringConfig
from tasks.datasets.pair_sets import PairSets, check_pair_sets, judged_length, measured_once, prepare_pair_sets
from tasks.datasets.pairs import PAIRS_FILE, PairSource
from tasks.datasets.problems import OverlapRules
from tasks.datasets.prompt_length import model_tokenizer
from tasks.loop.loop import flow_run_name, run_loop
from tasks.policies.base import base_policy
from tasks.policies.best import publish_best
from tasks.policies.train import train_reward_model
from tasks.rollouts.trained_reward import measure_reward_model
from tasks.settings.leading import MACHINE, START, TRAINING
from tasks.settings.run import RunConfig
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run
from tasks.tracking.reward_report import conclude_reward_model


class RewardModel(PairSource, RunConfig):
    """Every setting of a reward model. Defaults are InstructGPT's, where published."""

    leading_settings = (
        *START,
        "pairs",
        "validation_pairs",
        "held_out",
        "pairs_format",
        "unusable",
        "overlap.near_duplicates",
        "overlap.contamination",
        *TRAINING,
        "train.margin",
        "train.centering",
        "train.dtype",
        "score.batch_tokens",
        *MACHINE,
    )

    validation_pairs: Annotated[
        Path | None, Field(description="Pairs to measure on; if not set, a share of the pairs is held out.")
    ] = None
    held_out: Annotated[
        float,
        Field(gt=0, lt=1, description="That share, by hash of the prompt, so adding rows moves no other row."),
    ] = 0.1
    unusable: Annotated[
        Literal["refuse", "drop"],
        Field(description="What to do with a row that cannot be used: reject the data set, or drop and count the row."),
    ] = "refuse"
    placeholders: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], str],
        Field(default_factory=dict, description="Values of placeholders, such as {name: Ada} for {{name}}."),
    ]
    reasoning: ReasoningSetting = "leave"
    overlap: Annotated[OverlapRules, Field(description="Pairs whose prompts repeat held-out ones.")] = OverlapRules()
    train: Annotated[RewardTrainConfig, Field(description="How the reward model is trained.")] = RewardTrainConfig()
    score: Annotated[ScoringConfig, Field(description="How held-out pairs are scored.")] = ScoringConfig()

    def input_files(self) -> dict[str, Path]:
        named = {"pairs": self.pairs, "validation_pairs": self.validation_pairs}
        return super().input_files() | {name: path for name, path in named.items() if path is not None}

    @property
    def sets(self) -> PairSets:
        """Which pairs to train on, and which to hold out."""
        validation = self.pair_reading(self.validation_pairs) if self.validation_pairs else None
        return measured_once(self.pair_reading(self.pairs), validation, self.held_out, self.overlap.rules)

    def check_inputs(self) -> None:
        check_pair_sets(self.sets)
        if self.model:
            model_tokenizer(self)


@flow(
    name="reward-model",
    description=__doc__,
    flow_run_name=flow_run_name,
    persist_result=False,
    validate_parameters=True,
)
def reward_model(config: RewardModel, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, Any]:
    """Train and measure a reward model, or continue where an earlier start of the same run stopped."""
    return run_loop("Reward model", loop, config, on_drift)


def loop(run: Run, config: RewardModel) -> dict[str, Any]:
    """The algorithm: a single iteration. Has no effect when `run` is only planning."""
    at, start = run.place("iter-1"), base_policy(run, config).artifact("policy")
    pairs = prepare_pair_sets(at, config.sets, start, judged_length, {})
    unseen = pairs.artifact(f"{HELD_OUT}.parquet")
    model = train_reward_model(at, start, pairs.artifact(PAIRS_FILE), config.training, unseen)
    policy = model.artifact("policy")
    measured = measure_reward_model(at, policy, unseen, config.score)
    publish_best(run, policy, 1)
    return conclude_reward_model(run, config, pairs, model, measured)
