"""What a run leaves for people: MLflow history, Prefect artifacts, the report and `summary.json`.

Everything is read from the stages' files; nothing is measured here.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from data.metrics import Interval, SetMetrics
from data.overlap import Repeated
from data.rows import SPLITS, Problem
from data.storage import count_by, parquet_files, read_rows
from data.text import markdown, storable
from tasks.artifacts import publish_link, publish_markdown, publish_table
from tasks.champion import Gate, apply_gate
from tasks.datasets import SHOWN
from tasks.evaluate import Evaluation, coverage, load_evaluation
from tasks.files import file_sha256, write_json
from tasks.likelihood import load_likelihood
from tasks.logs import run_logger
from tasks.loop import Iteration
from tasks.pairs import NOTES_FILE
from tasks.problems import DATA
from tasks.provenance import package_versions
from tasks.report import Answer, DataReport, IterationReport, Report, SideBySide, write_report
from tasks.run import SUMMARY, Result, Run
from tasks.score import SELECTION, TALLY
from tasks.tracking import HistoryError, RunStatus, Tracking, nameable

REPORT, CURVE = "report.html", "curve.png"
SIDE_BY_SIDE = 20
TABLE_ROWS, LONGEST_CELL = 200, 10_000  # of the answers that MLflow shows


class Recorder:
    """Keeps the history while the run is open, and closes it with the right status however the run ends."""

    def __init__(self, run: Run, algorithm: str, config: Any) -> None:
        self.run, self.algorithm, self.config = run, algorithm, config

    def __enter__(self) -> Self:
        values = self.config.model_dump(mode="json")
        self.tracking = Tracking(self.run.directory, self.algorithm, values)
        self.run.recorder = self
        self.run.ids |= {"mlflow": self.tracking.parent, **_prefect_ids()}
        run_logger().info("MLflow %s", self.tracking.where())
        publish_link(f"{self.run.directory.name}-mlflow", self.tracking.where(), "The run's history in MLflow")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: RunStatus = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "SCHEDULED" if _suspends(error) else "KILLED"
        self.run.recorder = None
        try:
            with self.tracking.reaching():
                self.tracking.finish(status)
        except HistoryError as unreachable:
            if error is None:
                raise
            run_logger().warning("%s", unreachable)


def record_iteration(run: Run, iterations: Sequence[Iteration]) -> None:
    """Log the latest iteration to MLflow, and the table of all to Prefect. Does nothing while planning.

    Where MLflow does not answer the loop goes on, and the history is completed with the next iteration, or at the end.
    """
    recorder, latest = run.recorder, iterations[-1]
    if recorder is None:
        return
    try:
        _complete_history(run, iterations)
    except HistoryError as error:
        run_logger().warning("%s The loop goes on.", error)
    publish_table(f"{run.directory.name}-iterations", iteration_rows(iterations), "Iterations")
    accuracy = _iteration_report(latest, iterations[0]).validation
    run_logger().info(
        "Iteration %d: validation pass@1 %s%s",
        latest.number,
        accuracy.greedy,
        f", against the base {accuracy.against['base']}" if "base" in accuracy.against else "",
    )


def iteration_rows(iterations: Sequence[Iteration]) -> list[dict[str, Any]]:
    """The table of iterations, for people."""
    return [_row(_iteration_report(iteration, iterations[0])) for iteration in iterations]


def answers_shown(run: Run, iteration: Iteration) -> list[list[Any]]:
    """Prompt, reference, greedy answer and verdict of the first validation problems."""
    return list(json.loads(_sample_table(run, iteration).read_text())["data"])


def _complete_history(run: Run, iterations: Sequence[Iteration]) -> None:
    """Log every iteration that is not wholly in MLflow yet."""
    tracking: Tracking = run.recorder.tracking
    with tracking.reaching():
        for file in parquet_files(run.directory / "problems"):
            tracking.log_dataset(file.stem, file_sha256(file), str(file), count_by(file, "source"))
        for iteration in iterations:
            if not tracking.logged(iteration.number):
                _log_iteration(run, tracking, iteration, iterations[0])


def _log_iteration(run: Run, tracking: Tracking, iteration: Iteration, base: Iteration) -> None:
    number = iteration.number
    if (train := iteration.stages.get("train")) is not None:
        tracking.log_training(number, train.path / "metrics.jsonl", train.ended_ms)
    policy = iteration.policy.artifact("policy")
    tracking.register(run.recorder.config.registry, number, policy, {"run": run.directory.name})
    numbers = _numbers(_iteration_report(iteration, base)) | _likelihood_numbers(iteration)
    judge = (_json(iteration, TALLY) or {}).get("judge", {})
    rates = ("parse_rate", "flip_rate", "entropy_bits")
    numbers |= {f"judge/{name}": float(judge[name]) for name in rates if judge.get(name) is not None}
    numbers |= {f"pairs/{note}": float(count) for note, count in (_json(iteration, NOTES_FILE) or {}).items()}
    numbers |= _source_numbers(iteration)
    tables = {"samples": _sample_table(run, iteration)}
    tracking.log_iteration(number, numbers, tables, iteration.stages["evaluate"].ended_ms)


def record_end(
    run: Run,
    config: Any,
    problems: Result,
    iterations: Sequence[Iteration],
    best: int,
    final: tuple[Result, Result],
    measure_gate: Callable[[], Gate | None],
    reason: str,
) -> dict[str, Any]:
    """Write the report, complete the history, let the registry's champion follow the gate, and write the summary.

    Raises:
        HistoryError: MLflow does not answer. The report is written; the summary, which says that the run is finished,
            is not.
    """
    recorder = run.recorder
    base, ours = (load_evaluation(result) for result in final)
    if recorder is None or base is None or ours is None:
        return {}
    tracking: Tracking = recorder.tracking
    reports = [_iteration_report(iteration, iterations[0]) for iteration in iterations]
    report = Report(
        algorithm=recorder.algorithm,
        run=run.directory.name,
        status="finished",
        best_iteration=best,
        stop_reason=reason,
        iterations=reports,
        final={name: (base.metrics[name], ours.metrics[name]) for name in _ordered(ours)},
        examples=_side_by_side(problems, base, ours),
        data=_data(problems, iterations),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        command=_command(),
        versions=package_versions(),
        mlflow=tracking.where(),
        extra_curves=_preference_curves(iterations),
    )
    html, png = run.directory / REPORT, run.directory / CURVE
    write_report(report, html, png)
    _complete_history(run, iterations)
    gate = measure_gate()
    with tracking.reaching():
        tracking.log_files(html, png)
        for name, metrics in ours.metrics.items():
            numbers = {f"{name}/{key}": value for key, value in _metrics(metrics).items()}
            tracking.log_final(numbers, name, final[1].ended_ms)
        policy = iterations[best].policy.artifact("policy")
        version = tracking.register(config.registry, best, policy, {"run": run.directory.name})
        champion = apply_gate(tracking.registry, version, gate)
        tracking.finish("FINISHED")  # before the summary: a run that has one is not opened again
    run_logger().info("%s", champion)
    publish_markdown(f"{run.directory.name}-report", _markdown(report, html), "Result")
    summary = {
        "best_iteration": best,
        "stop_reason": reason,
        "report": str(html),
        "curve": str(png),
        "best": str(run.directory / "best" / "policy"),
        "mlflow": tracking.where(),
        "champion": champion,
        "iterations": [_row(r) for r in reports],
        "final": {name: _final_row(*pair) for name, pair in report.final.items()},
    }
    write_json(run.directory / SUMMARY, summary)
    return summary


def _data(problems: Result, iterations: Sequence[Iteration]) -> DataReport:
    """The problems, and what training prompts repeat: those of the problems, or a user's pairs."""
    stages = [problems, *(stage for iteration in iterations for stage in iteration.stages.values())]
    noticed = [json.loads((stage.path / DATA).read_text()) for stage in stages if (stage.path / DATA).exists()]
    return DataReport(
        sources={split: dict(count_by(problems.path / f"{split}.parquet", "source")) for split in _splits(problems)},
        dropped=problems.finished.manifest.dropped if problems.finished else {},
        files=_first(notes.get("files", {}) for notes in noticed),
        skipped=_first(notes.get("skipped_files", {}) for notes in noticed),
        noticed=Counter[str]() + sum((Counter(_counts(notes)) for notes in noticed), Counter()),
        repeated=[Repeated(**shown) for notes in noticed for shown in notes["repeated"]],
    )


def _first(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What comes first of several tables, as much of it as the log shows."""
    return dict(islice((item for part in parts for item in part.items()), SHOWN))


def _counts(notes: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in {**notes, **notes.get("noticed", {})}.items() if isinstance(value, int)}


def _splits(problems: Result) -> list[str]:
    return [split for split in SPLITS if f"{split}.parquet" in problems.finished_files()]


def _iteration_report(iteration: Iteration, base: Iteration) -> IterationReport:
    evaluation, first = load_evaluation(iteration.stages["evaluate"]), load_evaluation(base.stages["evaluate"])
    assert evaluation is not None and first is not None
    gained, lost = coverage(evaluation.outcomes["validation"], first.outcomes["validation"])
    seconds = {name: s.finished.manifest.seconds for name, s in iteration.stages.items() if s.finished is not None}
    if iteration.number == 0 and iteration.policy.finished is not None:
        seconds = {"base": iteration.policy.finished.manifest.seconds} | seconds
    return IterationReport(
        iteration=iteration.number,
        validation=evaluation.metrics["validation"],
        selection=_json(iteration, SELECTION),
        verdicts=(_json(iteration, TALLY) or {}).get("verdicts"),
        coverage_gained=gained if iteration.number else None,
        coverage_lost=lost if iteration.number else None,
        seconds=seconds,
    )


def _json(iteration: Iteration, name: str) -> dict[str, Any] | None:
    """The file of that name, from whichever stage of the iteration wrote one."""
    files = (stage.path / name for stage in iteration.stages.values())
    return next((dict(json.loads(file.read_text())) for file in files if file.exists()), None)


def _metrics(metrics: SetMetrics) -> dict[str, float]:
    numbers = {
        "pass_at_1_greedy": metrics.greedy.value,
        "truncated": metrics.truncated,
        "mean_tokens": metrics.mean_tokens,
    }
    numbers |= {f"pass_at_{k}": interval.value for k, interval in metrics.pass_at.items()}
    numbers |= {f"maj_at_{k}": interval.value for k, interval in metrics.majority_at.items()}
    for other, difference in metrics.against.items():
        numbers |= {f"gain_over_{other}": difference.value, f"gain_over_{other}_low": difference.low}
    return numbers


def _numbers(report: IterationReport) -> dict[str, float]:
    numbers = {f"validation/{name}": value for name, value in _metrics(report.validation).items()}
    numbers |= {f"seconds/{name}": value for name, value in report.seconds.items()}
    numbers |= {f"selection/{name}": float(value) for name, value in (report.selection or {}).items()}
    return numbers | {f"verdicts/{name}": float(value) for name, value in (report.verdicts or {}).items()}


def _source_numbers(iteration: Iteration) -> dict[str, float]:
    """How many rows the iteration made to train on, by the data set that their prompts are from."""
    counts: Counter[str] = Counter()
    for stage in iteration.stages.values():
        for name, column in (("examples.parquet", "source"), ("pairs.parquet", "chosen_source")):
            if (stage.path / name).exists():
                counts += count_by(stage.path / name, column)
    named: Counter[str] = Counter()
    for source, count in counts.items():
        named[f"source/{nameable(source)}"] += count
    return {name: float(count) for name, count in named.items()}


def _likelihood_numbers(iteration: Iteration) -> dict[str, float]:
    """What the policy that the iteration began with thought of its pairs."""
    if "reference" not in iteration.stages:
        return {}
    found = load_likelihood(iteration.stages["reference"])
    return {
        f"likelihood/{sides}/{name}": float(value)
        for sides, metrics in found.items()
        for name, value in metrics.model_dump().items()
    }


def _preference_curves(iterations: Sequence[Iteration]) -> dict[str, list[Interval | float | None]]:
    """Of loops that train on pairs: how far apart gold and own answers are, and the margin that training reached."""
    if not any("reference" in iteration.stages for iteration in iterations):
        return {}
    # An iteration's pairs are the answers of the policy before, and measured by it.
    measured = [load_likelihood(iteration.stages["reference"]) for iteration in iterations[1:]]
    gaps: list[Interval | float | None] = [*(found["current"].gap for found in measured), None]
    margins: list[Interval | float | None] = [_last_margin(iteration) for iteration in iterations]
    return {"log p(chosen) − log p(rejected), nats per pair": gaps, "reward margin at the end of training": margins}


def _last_margin(iteration: Iteration) -> float | None:
    if "train" not in iteration.stages:
        return None
    lines = map(json.loads, (iteration.stages["train"].path / "metrics.jsonl").read_text().splitlines())
    # Other lines are of held-out rows.
    margins = [float(line["rewards/margins"]) for line in lines if "rewards/margins" in line]
    return margins[-1] if margins else None


def _row(report: IterationReport) -> dict[str, Any]:
    metrics = report.validation
    row: dict[str, Any] = {"iteration": report.iteration, "kept": (report.selection or {}).get("kept")}
    row["pass@1 greedy"] = str(metrics.greedy)
    row |= {f"pass@{k}": f"{v.value:.1%}" for k, v in metrics.pass_at.items()}
    row |= {f"maj@{k}": f"{v.value:.1%}" for k, v in metrics.majority_at.items()}
    row["against base"] = str(metrics.against.get("base", ""))
    row["seconds"] = round(sum(report.seconds.values()))
    return row


def _final_row(base: SetMetrics, ours: SetMetrics) -> dict[str, str]:
    difference = ours.against["base"]
    return {
        "n": str(ours.problems),
        "base": str(base.greedy),
        "best": str(ours.greedy),
        "gain": str(difference),
        "clear": "yes" if difference.excludes_zero else "no",
    }


def _ordered(evaluation: Evaluation) -> list[str]:
    return sorted(evaluation.metrics, key=lambda name: name != "test")


def _side_by_side(problems: Result, base: Evaluation, ours: Evaluation) -> list[SideBySide]:
    before = {o.problem_id: o for o in base.outcomes["test"]}
    after = {o.problem_id: o for o in ours.outcomes["test"]}
    chosen = []
    for _, problem in zip(range(SIDE_BY_SIDE), read_rows(Problem, problems.path / "test.parquet"), strict=False):
        first, last = before[problem.id], after[problem.id]
        chosen.append(
            SideBySide(
                prompt=problem.messages[-1]["content"],
                reference=problem.reference or "",
                base=Answer(text=first.greedy_text, verdict=first.greedy_verdict),
                final=Answer(text=last.greedy_text, verdict=last.greedy_verdict),
            )
        )
    return chosen


def _sample_table(run: Run, iteration: Iteration) -> Path:
    """A file of greedy validation answers with their verdicts, for a person to read in MLflow."""
    evaluation = load_evaluation(iteration.stages["evaluate"])
    assert evaluation is not None
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


def _markdown(report: Report, html: Path) -> str:
    from tasks.report import findings

    lines = [finding.sentence for finding in findings(report)]
    return "\n\n".join(
        [*lines, f"The loop ended because {report.stop_reason}.", f"Report: {markdown(str(html.absolute()))}"]
    )


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _suspends(error: BaseException) -> bool:
    from prefect.exceptions import Pause

    return isinstance(error, Pause)


def _prefect_ids() -> dict[str, str]:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return {"prefect": str(context.flow_run.id)} if context is not None and context.flow_run is not None else {}
