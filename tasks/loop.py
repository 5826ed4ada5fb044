"""What every loop shares: its settings, its beginning (plan, checks, lock, tracking) and its end (best, final test).

The loop itself is a `for` statement in the algorithm's own file under flows/.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from data.formats import Use
from data.metrics import paired_difference
from data.stopping import StopRule, best_iteration, stop_reason
from models import tiny
from models.config import Config, EngineConfig, LaunchConfig, SamplingConfig, TrainConfig, gradient_accumulation
from models.estimate import parameters_of
from tasks.approval import ask, decided_best, require_deployment
from tasks.champion import Gate, pin_champion, policy_of, run_name, settle
from tasks.contract import Artifact, OnDrift
from tasks.environment import ARTIFACTS, PREFECT, SERVICES, SQLITE
from tasks.evaluate import EvaluateConfig, HeldOut, evaluate, load_evaluation
from tasks.files import write_json
from tasks.logs import keep_logs_plain
from tasks.policy import BootstrapConfig, PolicySource, publish_best
from tasks.problems import ProblemSource, expected_counts
from tasks.rewards import RewardConfig, problems_judged_by
from tasks.run import PLAN, Result, Run, open_run

LONGEST_NAME = 100  # of a run: files, MLflow's runs and Prefect's artifacts are named after it


class StopConfig(Config):
    """When the loop ends before its last iteration. Only validation counts."""

    rule: Annotated[
        StopRule, Field(description="paper: once validation no longer improves; patience: after some; none: never.")
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
    reward: Annotated[RewardConfig, Field(description="What judges answers.")] = RewardConfig(parts={})
    evaluate: Annotated[EvaluateConfig, Field(description="How policies are measured.")] = EvaluateConfig()
    engine: Annotated[EngineConfig, Field(description="How vLLM runs.")] = EngineConfig()

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
    plan = check(loop, config, on_drift).plan
    settings = {"algorithm": algorithm} | config.model_dump(mode="json")
    with open_run(config.directory, settings, on_drift) as run, Recorder(run, algorithm, config):
        pin_champion(config)
        write_json(config.directory / PLAN, [planned.stage.name for planned in plan])
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


def begin(run: Run, config: LoopConfig, problems: Result, base: Result) -> list[Iteration]:
    """Iteration 0, which is the base policy, measured on validation."""
    iterations: list[Iteration] = []
    add_iteration(run, config, problems, iterations, base, {})
    return iterations


def add_iteration(
    run: Run,
    config: LoopConfig,
    problems: Result,
    iterations: list[Iteration],
    policy: Result,
    stages: Mapping[str, Result],
) -> str | None:
    """Measure an iteration's policy on validation, against the base and the iteration before; keep it and record it.

    Returns:
        Why the loop has to end here, or None.
    """
    from tasks.record import answers_shown, iteration_rows, record_iteration

    number = len(iterations)
    against = {}
    if iterations:
        against = {"base": iterations[0].stages["evaluate"], "previous": iterations[-1].stages["evaluate"]}
    sets = config.held_out(problems, "validation")
    measured = _evaluate(run, config, f"iter-{number}/evaluate", policy.artifact("policy"), sets, against)
    iterations.append(Iteration(number, policy, {**stages, "evaluate": measured}))
    record_iteration(run, iterations, "accuracy")
    if number and config.approve and not run.planning:
        rows = iteration_rows(iterations, "accuracy")
        decision = ask(run.directory, number, rows, answers_shown(run, iterations[-1]))
        if decision.decision != "go on":
            return f"a person decided so after iteration {number}"
    return stop_reason(config.stop.rule, config.stop.patience, _validation_accuracies(iterations))


def conclude(
    run: Run,
    config: LoopConfig,
    problems: Result,
    iterations: list[Iteration],
    reason: str | None,
    best: int | None = None,
) -> dict[str, Any]:
    """Publish the best iteration; measure base and best on the sets that no decision has seen; write the report.

    The best one is that of the highest validation accuracy, unless it is given or a person chose one.
    """
    from tasks.record import record_end

    accuracies = _validation_accuracies(iterations)
    best = decided_best(run.directory) if best is None else best
    if best is None:
        best = best_iteration(accuracies) if len(accuracies) == len(iterations) else len(iterations) - 1
    policy = iterations[best].policy.artifact("policy")
    publish_best(run, policy, best)
    sets = config.held_out(problems, "test", "transfer")
    base = _evaluate(run, config, "final/base", iterations[0].policy.artifact("policy"), sets, {})
    final = _evaluate(run, config, "final/best", policy, sets, {"base": base})
    reason = reason or f"all {len(iterations) - 1} iterations were run"

    def gate() -> Gate | None:
        return _measure_gate(run, config, iterations, best, sets, (base, final))

    measured = {"evaluate": base}, {"evaluate": final}
    return record_end(run, config, problems, iterations, best, measured, gate, reason, "accuracy")


def _measure_gate(
    run: Run,
    config: LoopConfig,
    iterations: list[Iteration],
    best: int,
    sets: Mapping[str, HeldOut],
    final: tuple[Result, Result],
) -> Gate | None:
    """The best iteration against the registry's champion on the test set, or where there is none, against the base."""
    if run.recorder is None:
        return None
    with run.recorder.tracking.reaching():
        champion = run.recorder.tracking.registry.champion(config.registry)
    if champion is None and best == 0:
        return None
    rival, ours = final
    known = {iteration.policy.artifact("policy").digest for iteration in (iterations[0], iterations[best])}
    if champion is not None and champion.digest not in known:
        checkpoint = policy_of(champion)
        if checkpoint is None:
            return Gate(champion, None, 0)
        rival = _evaluate(run, config, f"final/champion-{champion.digest[:8]}", checkpoint, sets, {})
    measured, others = load_evaluation(ours), load_evaluation(rival)
    assert measured is not None and others is not None
    outcomes = measured.outcomes["test"]
    return Gate(champion, paired_difference(outcomes, others.outcomes["test"], config.seed), len(outcomes))


def _evaluate(
    run: Run,
    config: LoopConfig,
    name: str,
    policy: Artifact,
    sets: Mapping[str, HeldOut],
    against: Mapping[str, Result],
) -> Result:
    settings = config.evaluate, config.generate, config.measured_by, config.engine, config.seed
    return evaluate(run, name, policy, sets, *settings, against)


def _validation_accuracies(iterations: list[Iteration]) -> list[float]:
    """Greedy validation accuracy of every iteration that has been evaluated, the base first."""
    evaluations = [load_evaluation(iteration.stages["evaluate"]) for iteration in iterations]
    return [e.metrics["validation"].greedy.value for e in evaluations if e is not None]
