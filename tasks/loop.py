"""What every loop shares: its settings, its beginning (plan, checks, lock, tracking) and its end (best, final test).

The loop itself is a `for` statement in the algorithm's own file under flows/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from data.formats import Use
from data.measures import DISCRIMINATOR, MeasureName
from data.stopping import StopRule, best_iteration, from_the_base, game_is_over, stop_reason
from models import tiny
from models.config import Config, EngineConfig, LaunchConfig, SamplingConfig, TrainConfig, gradient_accumulation
from models.estimate import parameters_of
from tasks.approval import ask, decided_best, require_deployment
from tasks.champion import Gate, pin_champion, run_name, settle
from tasks.contract import OnDrift
from tasks.environment import ARTIFACTS, PREFECT, SERVICES, SQLITE
from tasks.evaluate import EvaluateConfig, HeldOut
from tasks.files import write_json
from tasks.gate import measure_gate
from tasks.held_out import Measurable, measurable
from tasks.likelihood import PairsMeasured
from tasks.logs import keep_logs_plain
from tasks.measured import load_measured
from tasks.measuring import Measuring, measuring
from tasks.policy import BootstrapConfig, PolicySource, publish_best
from tasks.problems import Judged, ProblemSource, expected_counts
from tasks.rewards import RewardConfig, problems_judged_by
from tasks.run import PLAN, Result, Run, open_run
from tasks.win_rate_settings import WinRateConfig
from tasks.wording import too_small

NO_PAIRS: Mapping[str, PairsMeasured] = {}
LONGEST_NAME = 100  # of a run: files, MLflow's runs and Prefect's artifacts are named after it


class StopConfig(Config):
    """When the loop ends before its last iteration. Only validation counts."""

    rule: Annotated[
        StopRule,
        Field(
            description="paper: once validation no longer improves; patience: after some; discriminator (SPIN): once "
            "gold answers cannot be told from the opponent's; none: never."
        ),
    ] = "paper"
    patience: Annotated[int, Field(ge=1, description="Iterations without a new best, for the rule patience.")] = 1


class RunName(Config):
    """The first setting of every form and every help text."""

    run: Annotated[
        str,
        Field(
            pattern=r"^([A-Za-z0-9]|%[YmdHMS])([A-Za-z0-9._-]|%[YmdHMS])*$",
            max_length=LONGEST_NAME,
            description="Name of the run. It may hold the date, as in nightly-%Y-%m-%d; one left unfinished goes on.",
        ),
    ] = "run"

    @field_validator("run")
    @classmethod
    def _is_not_taken(cls, run: str) -> str:
        if run.lower() in (PREFECT, SERVICES, ARTIFACTS) or run.lower().startswith(SQLITE):
            raise ValueError(f"the folder of runs keeps files of its own under the name {run}. Choose another name")
        return run


class RunConfig(PolicySource, RunName):
    """Settings that every run has."""

    runs_dir: Annotated[Path, Field(description="Folder that holds all runs.")] = Path("runs")
    registry: Annotated[
        str | None,
        Field(description="Registered model that the checkpoints become versions of; none: the run's, without date."),
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of everything random.")] = 0
    bootstrap: Annotated[BootstrapConfig, Field(description="Training of the embedded tiny model.")] = BootstrapConfig()
    train: Annotated[TrainConfig, Field(description="How the policy is trained.")] = TrainConfig()
    launch: Annotated[LaunchConfig, Field(description="How training runs.")] = LaunchConfig()

    @property
    def directory(self) -> Path:
        return self.runs_dir / self.run

    @property
    def row_tokens(self) -> int:
        """Tokens of a training row, for estimates; 0 if the settings do not say."""
        return 0

    def input_files(self) -> dict[str, Path]:
        """Every file that has to be there before the run starts, by the setting that names it."""
        return {"adapter": self.adapter} if self.adapter else {}

    def check_inputs(self) -> None:
        """Read a run's own input files, if it has any, so that bad ones are refused before anything heavy starts."""

    @model_validator(mode="after")
    def _launch_fits(self) -> Self:
        gradient_accumulation(self.train, self.launch)
        if self.train.quantize and self.launch.zero_stage == 3:
            raise ValueError(
                "train.adapter.quantize: ZeRO 3 cannot spread weights of 4 bits over devices. Choose launch.zero_stage "
                "0, 1 or 2 (each device then holds all weights, at half a byte each), or do not quantize."
            )
        return self


class LoopConfig(RunConfig, ProblemSource, RunName):
    """Settings that every loop has."""

    init: Annotated[
        Literal["base", "champion"],
        Field(description="What the loop begins with: the model above, or the registry's champion where there is one."),
    ] = "base"
    approve: Annotated[
        bool, Field(description="Suspend after each iteration until a person has decided in the Prefect UI.")
    ] = False
    stop: Annotated[StopConfig, Field(description="When to stop early.")] = StopConfig()
    generate: Annotated[SamplingConfig, Field(description="How answers are sampled.")] = SamplingConfig()
    measure: Annotated[
        MeasureName | Literal["last"] | None,
        Field(
            description="By what the loop stops, chooses its best iteration and moves the champion; last: by nothing, "
            "its last iteration is the result; none: by the first that can be taken of those usual for the flow."
        ),
    ] = None
    reward: Annotated[RewardConfig, Field(description="What judges answers.")] = RewardConfig(parts={})
    evaluate: Annotated[EvaluateConfig, Field(description="How policies are measured.")] = EvaluateConfig()
    win_rate: Annotated[
        WinRateConfig | None,
        Field(description="A fixed judge that compares answers to held-out prompts; none: nobody is asked."),
    ] = None
    engine: Annotated[EngineConfig, Field(description="How vLLM runs.")] = EngineConfig()

    measures: ClassVar[tuple[MeasureName, ...]] = ("accuracy",)
    """By which the flow decides, the first that can be taken."""
    has_pairs: ClassVar[bool] = False
    """Whether there are held-out pairs."""
    has_opponent: ClassVar[bool] = False
    """Whether the policy learns to tell gold answers from an opponent's."""

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
        return 2 * self.generate.max_tokens  # a prompt that is as long as the longest answer

    @property
    def expected_problems(self) -> dict[str, int]:
        return expected_counts(self)

    def held_out(self, problems: Result, *names: str) -> dict[str, HeldOut]:
        """Those of the named splits that have problems."""
        expected = self.expected_problems
        return {
            name: HeldOut(problems.artifact(f"{name}.parquet"), expected[name])
            for name in names
            if (f"{name}.parquet" in problems.finished_files() if problems.finished else expected[name])
        }

    def input_files(self) -> dict[str, Path]:
        return self.files() | super().input_files()

    def judged_by(self, trained: bool = True, measured: bool = True) -> tuple[Use, Callable[[str | None], bool]]:
        rewards = (self.reward, trained), (self.measured_by, measured)
        return problems_judged_by(*(reward for reward, asked in rewards if asked))

    @property
    def measured_by(self) -> RewardConfig:
        """What judges answers to held-out problems."""
        return self.evaluate.reward or self.reward

    @model_validator(mode="after")
    def _an_opponent_is_there(self) -> Self:
        if self.stop.rule == "discriminator" and not self.has_opponent:
            raise ValueError("stop.rule discriminator is SPIN's: here is no opponent. Choose paper, patience or none.")
        return self

    @model_validator(mode="after")
    def _one_answer_can_be_judged(self) -> Self:
        if self.measured_by.judged and self.measured_by.judge.kind == "pairwise":
            raise ValueError(
                "A pairwise judge compares answers to one problem; a greedy evaluation has one answer. Give held-out "
                "problems another reward, such as evaluate.reward.name: final_answer."
            )
        return self


class GoldLoopConfig(LoopConfig):
    """Settings of a loop that trains on gold answers."""

    trains_on_gold: ClassVar[bool] = True

    problems: Annotated[
        Path | None,
        Field(
            validation_alias=AliasChoices("problems", "demonstrations"),
            description="Data set of demonstrations, in any known format; none: the embedded ones.",
        ),
    ] = None
    verify: Annotated[
        bool | None,
        Field(
            description="Whether answers to held-out prompts are graded by the reward; none: if nearly all of their "
            "references can be. Else only the likelihood of gold answers is measured, and what a judge prefers."
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


@dataclass(frozen=True)
class Iteration:
    """One turn of a loop: its policy and the stages that led to it. Iteration 0 is the base."""

    number: int
    policy: Result
    stages: Mapping[str, Result]


Loop = Callable[[Run, Any], dict[str, Any]]


def run_loop(algorithm: str, loop: Loop, config: RunConfig, on_drift: OnDrift) -> dict[str, Any]:
    """Check, lock, track and run a loop, or another run. Bad input is refused before anything heavy starts.

    Returns:
        The summary, also kept as `summary.json` in the run directory.
    """
    from tasks.preflight import check
    from tasks.record import Recorder

    keep_logs_plain()
    config = settle(config)
    if isinstance(config, LoopConfig) and config.approve:
        require_deployment()
    planned = check(loop, config, on_drift)
    settings = {"algorithm": algorithm, "decided_by": planned.decided_by} | config.model_dump(mode="json")
    with open_run(config.directory, settings, on_drift) as run, Recorder(run, algorithm, config):
        pin_champion(config)
        write_json(config.directory / PLAN, [stage.stage.name for stage in planned.plan])
        run.model_code = config.model_code
        return loop(run, config)


def flow_run_name() -> str:
    """The name of a flow run in Prefect: that of the run, with its date."""
    from prefect.runtime import flow_run

    config = flow_run.parameters["config"]
    told = config if isinstance(config, dict) else config.model_dump()
    return run_name(Path(told["runs_dir"]), told["run"])


def plan_loop(loop: Loop, config: RunConfig, on_drift: OnDrift) -> Run:
    """Walk the loop without doing anything; the returned run's `plan` says what would happen to each stage."""
    run = Run(config.directory, planning=True, on_drift=on_drift)
    run.parameters = parameters_of(config.model) if config.model else tiny.PARAMETERS
    run.row_tokens = config.row_tokens
    run.model_code = config.model_code
    loop(run, config)
    return run


def begin(run: Run, config: LoopConfig, problems: Result | None, base: Result) -> tuple[Measuring, list[Iteration]]:
    """How policies are measured; and iteration 0, which is the base policy, measured on validation."""
    held_out = measuring(run, config, problems)
    run.decided_by = held_out.decides.name if held_out.decides else None
    iterations: list[Iteration] = []
    add_iteration(held_out, iterations, base, {})
    return held_out, iterations


def add_iteration(
    measuring: Measuring,
    iterations: list[Iteration],
    policy: Result,
    stages: Mapping[str, Result],
    pairs: Mapping[str, PairsMeasured] = NO_PAIRS,
) -> str | None:
    """Measure an iteration's policy on validation, against the base and the iteration before; keep it and record it.

    Args:
        pairs: held-out pairs that it is measured on.

    Returns:
        Why the loop has to end here, or None.
    """
    from tasks.record import answers_shown, iteration_rows, record_iteration

    run, config, number = measuring.run, measuring.config, len(iterations)
    against = {"base": iterations[0].stages, "previous": iterations[-1].stages} if iterations else {}
    artifact = policy.artifact("policy")
    measured = measuring.measure(f"iter-{number}", artifact, ("validation",), against, pairs)
    iterations.append(Iteration(number, policy, {**stages, **measured}))
    record_iteration(run, iterations, run.decided_by)
    if number and config.approve and not run.planning:
        shown = answers_shown(run, iterations[-1])
        decision = ask(run.directory, number, iteration_rows(iterations, run.decided_by), shown)
        if decision.decision != "go on":
            return f"a person decided so after iteration {number}"
    return _stop_reason(measuring, iterations)


def conclude(
    measuring: Measuring,
    iterations: list[Iteration],
    reason: str | None,
    best: int | None = None,
    pairs: Mapping[str, PairsMeasured] = NO_PAIRS,
) -> dict[str, Any]:
    """Publish the best iteration; measure base and best on the sets that no decision has seen; write the report.

    The best one is that of the best validation by the measure that decides, or where none does the last, unless it is
    given or a person chose one.

    Args:
        pairs: held-out pairs that no decision has seen.
    """
    from tasks.record import record_end

    run, config = measuring.run, measuring.config
    best = decided_best(run.directory) if best is None else best
    if best is None:
        values = _values(measuring, iterations)
        best = len(iterations) - 1
        if measuring.decides and len(values) == len(iterations):
            best = best_iteration(values, measuring.decides)
    policy = iterations[best].policy.artifact("policy")
    publish_best(run, policy, best)
    sets = ("test", "transfer")
    base = measuring.measure("final/base", iterations[0].policy.artifact("policy"), sets, {}, {})
    final = measuring.measure("final/best", policy, sets, {"base": base}, pairs)
    reason = reason or f"all {len(iterations) - 1} iterations were run"

    def gate() -> Gate | None:
        return measure_gate(measuring, iterations, best, (base, final))

    measured = (base, final), gate, reason, run.decided_by, measuring.test_set(pairs)
    return record_end(run, config, measuring.problems, iterations, best, *measured)


def _stop_reason(measuring: Measuring, iterations: list[Iteration]) -> str | None:
    rule, number = measuring.config.stop, len(iterations) - 1
    if rule.rule == "discriminator":
        played = iterations[-1].stages["likelihood"]
        if number == 0 or played.finished is None:
            return None
        found = load_measured([played]).get("validation", DISCRIMINATOR.name)
        if found and too_small(DISCRIMINATOR, found.rows, found.value):
            return None
        return game_is_over(number, found.value if found else None)
    if measuring.decides is None:
        return None
    return stop_reason(rule.rule, rule.patience, _values(measuring, iterations), measuring.decides)


def _values(measuring: Measuring, iterations: list[Iteration]) -> list[float]:
    """What the base and every iteration came to on validation, by the measure that decides; nothing while planning."""
    measure = measuring.decides
    if measure is None:
        return []
    found = [load_measured(iteration.stages.values()).get("validation", measure.name) for iteration in iterations]
    return from_the_base([estimated.value.value if estimated else None for estimated in found], measure)
