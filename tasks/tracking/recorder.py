"""A run's results for people: MLflow history, Prefect artifacts, the report and the content of `summary.json`.

Everything is read from the stages' files (`tasks/tracking/contents.py`); only differences are computed here.
"""

import getpass
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from data.files import file_sha256, write_json
from data.measures import MEASURES
from data.rows import Problem, Rollout
from data.storage import count_by, parquet_files, read_rows, read_rows_of
from data.text import storable
from models.on_policy import ROLLOUTS
from tasks.report.content import Report
from tasks.report.findings import findings
from tasks.report.page import write_report
from tasks.rollouts.proxy import load_best_of
from tasks.settings.loop import LoopConfig
from tasks.settings.run import RunConfig
from tasks.stage.contract import JOURNAL
from tasks.stage.iteration import Iteration
from tasks.stage.logs import run_logger
from tasks.stage.progress import flow_run_page, publish_link, publish_markdown, publish_table
from tasks.stage.provenance import code_version, package_versions
from tasks.stage.run import Result, Run
from tasks.tracking.champion import Gate, apply_gate, gates_decided
from tasks.tracking.contents import (
    Finals,
    data_report,
    evaluation_of,
    held_out,
    iteration_report,
    pairs_file,
    preference_curves,
    rival,
    side_by_side,
    training_curves,
)
from tasks.tracking.live import Live
from tasks.tracking.mlflow import HistoryError, RunStatus, Tracking
from tasks.tracking.numbers import final_numbers, final_table, iteration_numbers, iteration_table, measure_table
from tasks.tracking.result_page import result_page

REPORT, CURVE = "report.html", "curve.png"
TABLE_ROWS, LONGEST_CELL = 200, 10_000  # rows, and characters per cell, of the answers in MLflow


class Recorder:
    """Keeps the history while the run is open, and closes it with the right status."""

    def __init__(self, run: Run, algorithm: str, config: RunConfig) -> None:
        self.run, self.algorithm, self.config = run, algorithm, config

    def __enter__(self) -> Self:
        values = self.config.model_dump(mode="json")
        self.tracking = Tracking(self.run.directory, self.algorithm, values)
        self.live = Live(self.tracking)
        self.run.recorder = self
        self.run.ids |= {"mlflow": self.tracking.parent, **_prefect_ids()}
        with self.tracking.reaching():
            self.tracking.describe(self._provenance())
        run_logger().info("MLflow %s", self.tracking.where())
        publish_link(f"{self.run.directory.name}-mlflow", self.tracking.where(), "The run's history in MLflow")
        return self

    def _provenance(self) -> dict[str, str]:
        """Tags of the run: those that MLflow has columns for, and the project's own."""
        code, prefect = code_version(), self.run.ids.get("prefect")
        return {
            "mlflow.user": _user(),
            "mlflow.source.name": _command(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": code["commit"] or "",
            "algorithm": self.algorithm,
            "uncommitted_changes": "yes" if code["dirty"] else "no",
            "folder": str(self.run.directory.absolute()),
            "flow_run": flow_run_page(prefect) if prefect else "",
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: RunStatus = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "SCHEDULED" if _suspends(error) else "KILLED"
        self.run.recorder = None
        self.live.close()
        try:
            with self.tracking.reaching():
                self.tracking.send_queued()
                self.tracking.finish(status)
        except HistoryError as unreachable:
            if error is None:
                raise
            run_logger().warning("%s", unreachable)


def record_iteration(run: Run, iterations: Sequence[Iteration], measure: str | None = None) -> None:
    """Log the latest iteration to MLflow, and the table of all iterations to Prefect. Does nothing while planning.

    If MLflow does not answer, the loop continues, and the history is completed with the next iteration or at the end.

    Args:
        measure: the one that decides; None if there is none.
    """
    recorder = run.recorder
    if recorder is None:
        return
    try:
        _complete_history(run, iterations)
    except HistoryError as error:
        run_logger().warning("%s The loop continues.", error)
    rows = iteration_rows(iterations, measure)
    publish_table(f"{run.directory.name}-iterations", rows, "Iterations")
    labels = [m.label for m in MEASURES.values() if rows[-1].get(m.label)]
    figures = ", ".join(f"{label} {rows[-1][label]}" for label in labels) or "nothing measured"
    against = f"; difference from the base {rows[-1]['against base']}" if rows[-1]["against base"] else ""
    run_logger().info("Iteration %d: validation %s%s", iterations[-1].number, figures, against)


def iteration_rows(iterations: Sequence[Iteration], measure: str | None = None) -> list[dict[str, Any]]:
    """The table of iterations, for people, with the measure that decides first."""
    return iteration_table([iteration_report(i, iterations[0], measure) for i in iterations], measure)


def answers_shown(run: Run, iteration: Iteration) -> list[list[Any]]:
    """Prompt, reference, greedy answer and verdict of the first validation problems; empty if none are verified."""
    table = _sample_table(run, iteration)
    return list(json.loads(table.read_text())["data"]) if table else []


def _complete_history(run: Run, iterations: Sequence[Iteration]) -> None:
    """Log every iteration that is not completely in MLflow yet."""
    tracking: Tracking = run.recorder.tracking
    with tracking.reaching():
        for name, (file, column) in _datasets(run, iterations).items():
            tracking.log_dataset(name, file_sha256(file), str(file), count_by(file, column))
        for iteration in iterations:
            if not tracking.logged(iteration.number):
                _log_iteration(run, tracking, iteration, iterations[0])


def _datasets(run: Run, iterations: Sequence[Iteration]) -> dict[str, tuple[Path, str]]:
    """The files of problems, or of a user's pairs, each with the column that names a row's source."""
    problems = run.directory / "problems"
    if problems.is_dir():
        return {file.stem: (file, "source") for file in parquet_files(problems)}
    pairs = pairs_file(iterations)
    return {"pairs": (pairs, "chosen_source")} if pairs else {}


def _log_iteration(run: Run, tracking: Tracking, iteration: Iteration, base: Iteration) -> None:
    number = iteration.number
    if (train := iteration.stages.get("train")) is not None:
        tracking.log_training(number, train.path / JOURNAL, train.ended_ms)
    policy = iteration.policy.artifact("policy")
    tracking.register(run.recorder.config.registered, number, policy, {"run": run.directory.name})
    numbers = iteration_numbers(iteration_report(iteration, base), iteration)
    tables = {"samples": _sample_table(run, iteration), ROLLOUTS: _rollout_table(run, iteration)}
    last = iteration.stages.get("evaluate") or [iteration.policy, *iteration.stages.values()][-1]
    made = {name: stage.finished.manifest.config for name, stage in iteration.stages.items() if stage.finished}
    known = {name: table for name, table in tables.items() if table}
    tracking.log_iteration(number, numbers, known, last.ended_ms, made)


@dataclass(frozen=True)
class Ending:
    """How a loop ended.

    Attributes:
        best: the iteration that is the result: chosen by `run.decided_by`, or the last if no measure decides.
        reason: why the loop ended.
        final: stages that measured the base and the best policy at the end, by kind: evaluate, likelihood, win_rate.
        test_set: digest of the rows that the gate is measured on, if any.
        gate: measures the result against the champion, or the base if there is none.
    """

    best: int
    reason: str
    final: Finals
    test_set: str | None
    gate: Callable[[], Gate | None]


def record_end(
    run: Run, config: LoopConfig, problems: Result | None, iterations: Sequence[Iteration], ending: Ending
) -> dict[str, Any]:
    """Write the report, complete the history, apply the gate to the registry's champion, and return the summary.

    Args:
        problems: None if the run has none.

    Raises:
        HistoryError: MLflow does not answer. The report is written.
    """
    recorder = run.recorder
    if recorder is None:
        return {}
    tracking: Tracking = recorder.tracking
    best, measure, final = ending.best, run.decided_by, ending.final
    base, ours = (evaluation_of(stages) for stages in final)
    sets = sorted(ours.metrics, key=lambda name: name != "test") if base and ours else []
    report = Report(
        algorithm=recorder.algorithm,
        run=run.directory.name,
        status="finished",
        measure=measure,
        best_iteration=best,
        stop_reason=ending.reason,
        iterations=[iteration_report(i, iterations[0], measure) for i in iterations],
        final={name: (base.metrics[name], ours.metrics[name]) for name in sets if base and ours},
        held_out=held_out(final, config.seed),
        rival=rival(s["win_rate"] for s in (*final, *(i.stages for i in iterations)) if "win_rate" in s),
        gates=_gates_decided(tracking, ending.test_set, iterations[best].policy.artifact("policy").digest),
        examples=side_by_side(problems, final),
        data=data_report(problems, iterations),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        command=_command(),
        versions=package_versions(),
        mlflow=tracking.where(),
        commit=code_version()["commit"],
        checkpoint=str((run.directory / "best" / "policy").absolute()),
        extra_curves=preference_curves(iterations),
        best_of=load_best_of(iterations[0].stages["proxy"]) if "proxy" in iterations[0].stages else [],
        while_training=training_curves(iterations),
    )
    html, png = run.directory / REPORT, run.directory / CURVE
    write_report(report, html, png)
    _complete_history(run, iterations)
    gate = ending.gate()
    ended = max((stage.ended_ms for stage in final[1].values()), default=iterations[best].policy.ended_ms)
    with tracking.reaching():
        tracking.log_files(html, png)
        tracking.describe({"best_iteration": str(best), "ended_because": ending.reason})
        for name, numbers in final_numbers(report).items():
            tracking.log_final(numbers, name, ended)
        policy = iterations[best].policy.artifact("policy")
        version = tracking.register(config.registered, best, policy, {"run": run.directory.name})
        champion = apply_gate(tracking.registry, version, gate, ending.test_set)
        tracking.finish("FINISHED")  # before the summary: a run with a summary is not opened again
    publish_markdown(f"{run.directory.name}-report", result_page(report, png, html, champion), "Result")
    return {
        "best_iteration": best,
        "measure": measure,
        "stop_reason": ending.reason,
        "findings": [finding.sentence for finding in findings(report)],
        "report": str(html),
        "curve": str(png),
        "best": str(run.directory / "best" / "policy"),
        "mlflow": tracking.where(),
        "champion": champion,
        "iterations": iteration_table(report.iterations, measure),
        "final": final_table(report),
        "measures": measure_table(report),
    }


def _gates_decided(tracking: Tracking, test_set: str | None, policy: str | None) -> int | None:
    """How often a test set has decided on the champion before; None if the registry does not answer."""
    if test_set is None:
        return None
    try:
        with tracking.reaching():
            return gates_decided(tracking.registry, test_set, but=policy)
    except HistoryError:  # it ends the run once the report is written
        return None


def _sample_table(run: Run, iteration: Iteration) -> Path | None:
    """Write a file of greedy validation answers with their verdicts, for people to read in MLflow."""
    evaluation = evaluation_of(iteration.stages)
    if evaluation is None:
        return None
    prompts = {p.id: p for p in read_rows(Problem, run.directory / "problems" / "validation.parquet")}
    rows = [
        [
            storable(prompts[o.problem_id].messages[-1]["content"], LONGEST_CELL),
            storable(prompts[o.problem_id].reference or "", LONGEST_CELL),
            storable(o.greedy_text, LONGEST_CELL),
            o.greedy_verdict,
        ]
        for o in evaluation.outcomes["validation"][:TABLE_ROWS]
    ]
    path = run.directory / f"answers-{iteration.number}.json"
    write_json(path, {"columns": ["prompt", "reference", "answer", "verdict"], "data": rows})
    return path


def _rollout_table(run: Run, iteration: Iteration) -> Path | None:
    """Write a file of answers that the policy drew in its last step, with what it learned from them."""
    folder = iteration.stages["train"].path / ROLLOUTS if "train" in iteration.stages else None
    if folder is None or not folder.is_dir():
        return None
    drawn = list(islice(read_rows(Rollout, parquet_files(folder)[-1]), TABLE_ROWS))
    problems = read_rows_of(
        Problem, run.directory / "problems" / "train.parquet", "id", {row.problem_id for row in drawn}
    )
    prompts = {problem.id: storable(problem.messages[-1]["content"], LONGEST_CELL) for problem in problems}
    rows = [
        [prompts[row.problem_id], storable(row.completion, LONGEST_CELL), row.value, row.verdict, row.advantage]
        for row in drawn
    ]
    path = run.directory / f"rollouts-{iteration.number}.json"
    write_json(path, {"columns": ["prompt", "answer", "reward", "verdict", "advantage"], "data": rows})
    return path


def _command() -> str:
    """The command of this run; for one from a deployment, that of its configuration in a file."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if Path(sys.argv[0]).name == "engine.py" and context is not None and context.flow is not None:
        return f"autodidact {context.flow.name} --config settings.yaml"
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


def _suspends(error: BaseException) -> bool:
    from prefect.exceptions import Pause

    return isinstance(error, Pause)


def _prefect_ids() -> dict[str, str]:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return {"prefect": str(context.flow_run.id)} if context is not None and context.flow_run is not None else {}
