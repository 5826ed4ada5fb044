"""The contents of a run's report, as typed records that the caller fills from the stages' files."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.measures import Estimated
from data.metrics import Interval, SetMetrics
from data.overoptimization import BestOf
from data.prepare.overlap import Repeated


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IterationReport(Record):
    """One iteration. Iteration 0 is the base policy: measured, but without sampling or training."""

    iteration: int
    validation: SetMetrics | None = Field(
        None, description='Metrics of verified answers; `against` may have "base" and "previous".'
    )
    measures: dict[str, Estimated] = Field(
        default_factory=dict, description="All measures of the validation rows, by name."
    )
    selection: dict[str, int] | None = Field(None, description='"samples", "kept", and a count per reason to drop.')
    verdicts: dict[str, int] | None = Field(None, description="Verdicts of the training samples.")
    first_round: int | None = Field(
        None, description="Set if problems were sampled in rounds: `verdicts` are of so many answers to each."
    )
    spent: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="Share of correct answers in the first round -> what all rounds of such problems took: problems, "
        "samples, tokens, budget_samples, and budget_tokens, about what all answers would have taken.",
    )
    coverage_gained: int | None = Field(None, description="Validation problems solved now but not by the base.")
    coverage_lost: int | None = Field(None, description="Validation problems solved by the base but not now.")
    seconds: dict[str, float] = Field(default_factory=dict, description="Seconds per stage.")


class Answer(Record):
    """A policy's answer and its verdict."""

    text: str
    verdict: str
    false_step: bool = Field(False, description="The answer is correct, but a step of its working is not.")


class SideBySide(Record):
    """One problem, with the answers of the base and the final policy."""

    prompt: str
    reference: str
    base: Answer
    final: Answer


class DataReport(Record):
    """The problems of a run."""

    sources: dict[str, dict[str, int]] = Field(description="Set name -> data set -> problems.")
    dropped: dict[str, int] = Field(description="Rows left out, by reason.")
    files: dict[str, int] = Field(default_factory=dict, description="The first files read -> rows.")
    skipped: dict[str, str] = Field(default_factory=dict, description="The first files not read -> why.")
    noticed: dict[str, int] = Field(description="Rows with notices, by notice.")
    repeated: list[Repeated] = Field(description="The first prompts that repeat another.")


class Report(Record):
    """Everything that a run's report shows."""

    algorithm: str
    run: str
    status: str
    measure: str | None = Field("accuracy", description="What chose the best iteration. None: the last is the result.")
    best_iteration: int
    stop_reason: str
    iterations: list[IterationReport]
    final: dict[str, tuple[SetMetrics, SetMetrics]] = Field(
        description='Set name -> metrics of the base and the best policy; the latter has `against["base"]`.'
    )
    held_out: dict[str, dict[str, tuple[Estimated | None, Estimated]]] = Field(
        default_factory=dict, description="Set -> measure -> base and best policy; in addition to `final`."
    )
    rival: str | None = Field(None, description='Opponent of the win rate: "base", "previous" or "gold".')
    gates: int | None = Field(None, description="How often the test set has decided on the champion before.")
    examples: list[SideBySide]
    data: DataReport | None = None
    config: str
    command: str
    versions: dict[str, str]
    mlflow: str
    commit: str | None = Field(None, description="Of the code that made the run.")
    checkpoint: str | None = Field(None, description="Folder of the resulting policy.")
    extra_curves: dict[str, list[Interval | float | None]] = Field(
        default_factory=dict, description="Curves of the algorithm, with one value per entry of `iterations`."
    )
    best_of: list[BestOf] = Field(
        default_factory=list, description="What the best of the base's answers by the proxy reward are worth."
    )
    while_training: dict[str, dict[str, list[tuple[int, float]]]] = Field(
        default_factory=dict, description="Metric, with its rows -> iteration -> optimizer step and value."
    )

    @model_validator(mode="after")
    def _curves_cover_the_iterations(self) -> Self:
        for name, values in self.extra_curves.items():
            if len(values) != len(self.iterations):
                raise ValueError(
                    f"Curve {name!r} has {len(values)} values for {len(self.iterations)} iterations. "
                    "Give one per iteration, None for a missing one."
                )
        return self
