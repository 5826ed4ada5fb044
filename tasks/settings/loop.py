"""The settings that every loop has."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from data.formats import Use
from data.keeping import KEEP_PATTERN
from data.measures import DISCRIMINATOR, PAIR_ACCURACY, Measure, MeasureName
from data.stopping import StopRule
from models import tiny
from models.config import EngineConfig, SamplingConfig
from models.config_base import Config
from tasks.datasets.held_out import Measurable, measurable
from tasks.datasets.problems import Judged, ProblemSource, expected_counts
from tasks.rollouts.evaluate import EvaluateConfig, Evaluating
from tasks.rollouts.generate import Sampling
from tasks.rollouts.rewards import JUDGED, Judging, RewardConfig, problems_judged_by
from tasks.rollouts.win_rate import Comparing
from tasks.rollouts.win_rate_settings import WinRateConfig
from tasks.settings.leading import MACHINE, PROBLEMS, START, TRAINING
from tasks.settings.run import RunConfig, RunName
from tasks.stage.contract import Artifact
from tasks.stage.run import Result


class StopConfig(Config):
    """When the loop ends before its last iteration. Only validation counts."""

    rule: Annotated[
        StopRule,
        Field(
            description="paper: once validation no longer improves; patience: after several iterations without a new "
            "best; discriminator (SPIN): once gold answers cannot be distinguished from the opponent's; "
            "overoptimized (GRPO, RLHF): once the verifier's verdict falls while the reward model's rises; none: never."
        ),
    ] = "paper"
    patience: Annotated[int, Field(ge=1, description="Iterations without a new best, for the rule patience.")] = 1


class LoopConfig(RunConfig, ProblemSource, RunName):
    """Settings that every loop has."""

    leading_settings: ClassVar[tuple[str, ...]] = (
        *START,
        *PROBLEMS,
        "generate.samples",
        "generate.temperature",
        "generate.max_tokens",
        "reward.name",
        *TRAINING,
        "evaluate.samples",
        "stop.rule",
        *MACHINE,
    )

    init: Annotated[
        Literal["base", "champion"],
        Field(description="What the loop starts from: the model above, or the registry's champion if there is one."),
    ] = "base"
    approve: Annotated[
        bool, Field(description="Suspend after each iteration until someone approves it in the Prefect UI.")
    ] = False
    keep: Annotated[
        str,
        Field(
            pattern=KEEP_PATTERN,
            description="Iterations whose trained weights stay on disk: all; best: only the best; last N, such as "
            "last 3: the last N and the best. The others are freed once nothing needs them.",
        ),
    ] = "all"
    stop: Annotated[StopConfig, Field(description="When to stop early.")] = StopConfig()
    generate: Annotated[SamplingConfig, Field(description="How answers are sampled.")] = SamplingConfig()
    measure: Annotated[
        MeasureName | Literal["last"] | None,
        Field(
            description="Metric used to stop, choose the best iteration and move the champion. last: no metric, the "
            "last iteration is the result. Default: the first of the flow's usual measures that can be computed."
        ),
    ] = None
    reward: Annotated[RewardConfig, Field(description="The reward: what scores answers.")] = RewardConfig(
        parts={}, options={}
    )
    evaluate: Annotated[EvaluateConfig, Field(description="How policies are measured.")] = EvaluateConfig()
    win_rate: Annotated[
        WinRateConfig | None,
        Field(description="A fixed judge that compares answers to held-out prompts. Default: off."),
    ] = None
    engine: Annotated[EngineConfig, Field(description="How vLLM runs.")] = EngineConfig()

    measures: ClassVar[tuple[MeasureName, ...]] = ("accuracy",)
    """Measures that the flow can decide by; the first that can be computed is used."""
    has_pairs: ClassVar[bool] = False
    """Whether there are held-out pairs."""
    has_opponent: ClassVar[bool] = False
    """Whether the policy learns to distinguish gold answers from an opponent's."""

    @property
    def pair_measure(self) -> Measure:
        """The measure of held-out pairs."""
        return DISCRIMINATOR if self.has_opponent else PAIR_ACCURACY

    @property
    def has_proxy(self) -> bool:
        """Whether a reward model is optimized, and another reward measures policies."""
        return False

    @property
    def embedded(self) -> bool:
        return self.problems is None and (self.model is None or tiny.is_of_the_family(Path(self.model)))

    @property
    def has_problems(self) -> bool:
        """Whether problems are read at all."""
        given = self.problems or self.validation or self.test or self.transfer or self.overlap.held_out
        return self.trains_on_problems or self.embedded or bool(given)

    @property
    def measurable(self) -> Measurable:
        """What held-out problems can be measured by."""
        return Measurable(verified=True, gold=False)

    @property
    def row_tokens(self) -> int:
        longest = 2 * self.generate.max_tokens  # a prompt that is as long as the longest answer
        return max(longest, getattr(self.train, "pack_to", None) or 0)

    @property
    def expected_problems(self) -> dict[str, int]:
        return expected_counts(self)

    @property
    def sampling(self) -> Sampling:
        """Settings of a stage in which the policy answers."""
        return Sampling(self.generate, self.engine)

    @property
    def judging(self) -> Judging:
        """Settings of a stage in which its answers are judged."""
        return Judging(self.reward, self.engine)

    @property
    def evaluating(self) -> Evaluating:
        """Settings of a stage that measures a policy by its answers."""
        return Evaluating(self.evaluate, self.sampling, Judging(self.measured_by, self.engine))

    @property
    def comparing(self) -> Comparing:
        """Settings of the stages in which a judge compares answers. Requires `win_rate`."""
        assert self.win_rate is not None
        return Comparing(self.win_rate, self.sampling)

    def held_out(self, problems: Result, *names: str) -> dict[str, Artifact]:
        """The named splits that have problems."""
        files = {name: f"{name}.parquet" for name in names}
        expected = {file for file, count in problems.expected.items() if count}
        there = problems.finished_files() if problems.finished else expected
        return {name: problems.artifact(file) for name, file in files.items() if file in there}

    def input_files(self) -> dict[str, Path]:
        return self.files() | super().input_files()

    def judged_by(self, trained: bool = True, measured: bool = True) -> tuple[Use, Callable[[str | None], bool]]:
        rewards = (self.reward, trained), (self.measured_by, measured)
        return problems_judged_by(*(reward for reward, asked in rewards if asked))

    @property
    def measured_by(self) -> RewardConfig:
        """What judges answers to held-out problems."""
        return self.evaluate.reward or self.reward

    @property
    def ready_rewards(self) -> tuple[RewardConfig, ...]:
        """The rewards that are there before the run begins, and can be checked."""
        return self.reward, self.measured_by

    @model_validator(mode="after")
    def _the_rule_can_be_applied(self) -> Self:
        if self.stop.rule == "discriminator" and not self.has_opponent:
            raise ValueError("stop.rule discriminator needs SPIN's opponent. Choose paper, patience or none.")
        if self.stop.rule == "overoptimized" and not self.has_proxy:
            raise ValueError(
                "stop.rule overoptimized compares a reward model that is optimized with another reward, by which "
                "held-out answers are measured (evaluate.reward), but this run has only one. Choose paper, patience or "
                "none."
            )
        return self

    @model_validator(mode="after")
    def _one_answer_can_be_judged(self) -> Self:
        if JUDGED in self.measured_by.names and self.measured_by.judge.kind == "pairwise":
            raise ValueError(
                "A pairwise judge compares several answers to one problem, but a greedy evaluation has only one. Use "
                "another reward for held-out problems, such as evaluate.reward.name: final_answer."
            )
        return self


class GoldLoopConfig(LoopConfig):
    """Settings of a loop that trains on gold answers."""

    trains_on_gold: ClassVar[bool] = True

    problems: Annotated[
        Path | None,
        Field(
            validation_alias=AliasChoices("problems", "demonstrations"),
            description="Data set of demonstrations, in any known format. Default: the embedded one.",
        ),
    ] = None
    verify: Annotated[
        bool | None,
        Field(
            description="Whether the reward grades answers to held-out prompts. Default: if nearly all references can "
            "be graded. If not graded, only the likelihood of gold answers and a judge's preference are measured."
        ),
    ] = None

    @property
    def measurable(self) -> Measurable:
        found = measurable(self)
        if self.verify is None and self.measured_by.names == ("final_answer",):
            return found
        return replace(found, verified=self.verify is not False)

    def trained_on(self) -> Judged:
        use, can_grade = super().trained_on()
        if self.held_out_apart or use == "prompts" or not self.measurable.verified:
            return "demonstrations", None
        return use, can_grade

    def measured_on(self) -> Judged:
        rows = self.measurable
        if rows.verified:
            return super().measured_on()
        return ("demonstrations" if rows.gold else "prompts"), None

    @property
    def answers_held_out(self) -> bool:
        return self.has_opponent or self.win_rate is not None or self.measurable.verified
