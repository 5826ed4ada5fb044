"""A reward-model run's results for people: its metrics as tables, a report, MLflow history and `summary.json`.

Everything is read from the stages' files; nothing is measured here.
"""

import io
import json
from html import escape
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data.calibration import RewardMetrics
from data.files import file_sha256, write_json
from data.measures import Measure
from data.prepare.splits import HELD_OUT
from data.storage import count_by
from data.text import markdown
from tasks.datasets.pairs import PAIRS_FILE
from tasks.datasets.select import SELECTION
from tasks.report.wording import LEVEL, above, percent, too_small, unbroken, value_range
from tasks.rollouts.trained_reward import METRICS, load_reward_metrics
from tasks.settings.run import RunConfig
from tasks.stage.contract import JOURNAL
from tasks.stage.progress import publish_markdown, publish_table
from tasks.stage.run import SUMMARY, Result, Run
from tasks.tracking.recorder import REPORT

REWARD_ACCURACY = Measure("accuracy", "accuracy", "held-out pairs", even=0.5)
# The template that rich fills in: a page that loads nothing, with the tables as printed.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>SENTENCE</title>
<style>
{stylesheet}
body {{ color: {foreground}; background: {background}; margin: 2.5rem auto; max-width: 60rem; padding: 0 1.25rem; \
font-family: system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; line-height: 1.3; max-width: 48rem; }}
pre {{ font-family: ui-monospace, Menlo, "DejaVu Sans Mono", Consolas, monospace; overflow-x: auto; }}
</style>
</head>
<body>
<h1>SENTENCE</h1>
<pre><code style="font-family:inherit">{code}</code></pre>
</body>
</html>
"""


def headline(metrics: RewardMetrics) -> str:
    """The reward model's result on held-out pairs, in a sentence or two."""
    value, n = metrics.accuracy, f"n = {metrics.pairs:,}"
    sentence = (
        f"The reward model prefers the chosen answer in {percent(value.value)} of {n} held-out pairs, "
        f"{LEVEL} interval {value_range(value)}; 50 % is chance."
    )
    sentence += {
        "lower": " It is worse than chance.",
        "no clear difference": " The interval includes 50 %: not distinguishable from chance.",
    }.get(above(REWARD_ACCURACY, value), "")
    return " ".join(part for part in (sentence, too_small(REWARD_ACCURACY, metrics.pairs, value)) if part)


def figures(metrics: RewardMetrics) -> dict[str, str]:
    """Metrics on held-out pairs, for people."""
    r = metrics.length_correlation
    return {
        "pairs": f"{metrics.pairs:,}",
        "accuracy, with its 95 % interval": str(metrics.accuracy),
        "mean margin": f"{metrics.margin:.3f}",
        "loss in nats (0.693 is chance)": f"{metrics.loss:.3f}",
        "Brier score (0.250 is chance)": f"{metrics.brier:.3f}",
        "expected calibration error": f"{metrics.calibration_error:.1%}",
        "mean reward": f"{metrics.mean_reward:.3f}",
        "correlation of reward and length": "none" if r is None else f"{r:.2f}",
        "longer side preferred by the data": f"{metrics.chosen_longer:.1%}",
        "longer side preferred by the model": f"{metrics.preferred_longer:.1%}",
    }


def reward_tables(metrics: RewardMetrics) -> list[Table]:
    """The same and the reliability table, for printing."""
    first = Table("metric", title="Held-out pairs", title_justify="left")
    first.add_column("value", justify="right")
    for name, value in figures(metrics).items():
        first.add_row(name, value)
    second = Table(title="Reliability: the model's confidence and accuracy", title_justify="left")
    for name in ("confidence", "pairs", "mean confidence", "accuracy"):
        second.add_column(name, justify="right")
    for b in metrics.reliability:
        second.add_row(f"{b.low:.0%}-{b.high:.0%}", f"{b.pairs:,}", f"{b.confidence:.1%}", f"{b.accuracy:.1%}")
    return [first, second]


def conclude_reward_model(
    run: Run, config: RunConfig, pairs: Result, model: Result, measured: Result
) -> dict[str, Any]:
    """Write the report, complete the history with the checkpoint by reference, and write the summary.

    Returns:
        The summary; empty while the run is only planned.

    Raises:
        HistoryError: MLflow does not answer. The report is written, but not the summary, which marks the run as
            finished.
    """
    metrics = load_reward_metrics(measured)
    if run.recorder is None or metrics is None:
        return {}
    tracking, html = run.recorder.tracking, run.directory / REPORT
    _write_report(html, metrics)
    with tracking.reaching():
        for name, file in (("train", pairs.path / PAIRS_FILE), (HELD_OUT, pairs.path / f"{HELD_OUT}.parquet")):
            tracking.log_dataset(name, file_sha256(file), str(file), count_by(file, "chosen_source"))
        tracking.log_training(1, model.path / JOURNAL, model.ended_ms)
        version = tracking.register(config.registered, 1, model.artifact("policy"), {"run": run.directory.name})
        numbers = _numbers(metrics) | _selection(pairs)
        tracking.log_iteration(1, numbers, {HELD_OUT: measured.path / METRICS}, measured.ended_ms)
        tracking.log_files(html)
        tracking.finish("FINISHED")  # before the summary: a run with a summary is not opened again
    publish_table(f"{run.directory.name}-held-out", [figures(metrics)], "Held-out pairs")
    publish_table(
        f"{run.directory.name}-reliability", [b.model_dump() for b in metrics.reliability], "Confidence and accuracy"
    )
    sentence = headline(metrics)
    publish_markdown(
        f"{run.directory.name}-report", f"{sentence}\n\nReport: {markdown(str(html.absolute()))}", "Result"
    )
    summary = {
        "iterations": [],  # not a loop
        "findings": [sentence],
        "held_out": metrics.model_dump(),
        "best": str(run.directory / "best" / "policy"),
        "version": str(version),
        "report": str(html),
        "mlflow": tracking.where(),
    }
    write_json(run.directory / SUMMARY, summary)
    return summary


def _numbers(metrics: RewardMetrics) -> dict[str, float]:
    values = metrics.model_dump(exclude={"accuracy", "reliability"})
    values |= {"accuracy": metrics.accuracy.value, "accuracy_low": metrics.accuracy.low}
    values |= {"accuracy_high": metrics.accuracy.high}
    return {f"{HELD_OUT}/{name}": float(value) for name, value in values.items() if value is not None}


def _selection(pairs: Result) -> dict[str, float]:
    counts = json.loads((pairs.path / SELECTION).read_text())
    return {f"selection/{name}": float(count) for name, count in counts.items()}


def _write_report(file: Path, metrics: RewardMetrics) -> None:
    console = Console(record=True, file=io.StringIO(), width=100)
    for table in reward_tables(metrics):
        console.print(table)
    console.save_html(str(file), code_format=PAGE.replace("SENTENCE", escape(unbroken(headline(metrics)))))
