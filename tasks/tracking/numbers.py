"""A run's metrics for MLflow and tables for people: per iteration, and on the final sets."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from data.measures import ACCURACY, MEASURES, SAMPLED_ACCURACY, Estimated, Measure
from data.metrics import Interval, SetMetrics
from data.storage import count_by
from tasks.datasets.pairs import NOTES_FILE
from tasks.policies.reference import load_likelihood
from tasks.report.content import IterationReport, Report
from tasks.report.findings import at_equal_length
from tasks.rollouts.label import RATES as LABEL_RATES
from tasks.rollouts.score import TALLY
from tasks.stage.iteration import Iteration
from tasks.tracking.contents import json_of
from tasks.tracking.mlflow import nameable


def iteration_numbers(report: IterationReport, iteration: Iteration) -> dict[str, float]:
    """Return all metrics of an iteration, by their names in MLflow."""
    numbers = _verified("validation", report.validation) | _measured("validation", report.measures)
    numbers |= {f"seconds/{name}": value for name, value in report.seconds.items()}
    numbers |= {f"selection/{name}": float(value) for name, value in (report.selection or {}).items()}
    numbers |= {f"verdicts/{name}": float(value) for name, value in (report.verdicts or {}).items()}
    for kind in ("samples", "tokens", "budget_samples", "budget_tokens") if report.spent else ():
        numbers[f"spent/{kind}"] = float(sum(row[kind] for row in report.spent.values()))
    numbers |= _likelihood_numbers(iteration)
    judge = (json_of(iteration, TALLY) or {}).get("judge", {})
    rates = ("parse_rate", "flip_rate", "entropy_bits")
    numbers |= {f"judge/{name}": float(judge[name]) for name in rates if judge.get(name) is not None}
    told, rates = json_of(iteration, LABEL_RATES) or {}, ("labeled", "place_bias", "entropy_bits")
    numbers |= {f"label/{name}": float(told[name]) for name in rates if told.get(name) is not None}
    numbers |= {f"pairs/{note}": float(count) for note, count in (json_of(iteration, NOTES_FILE) or {}).items()}
    return numbers | _source_numbers(iteration)


def final_numbers(report: Report) -> dict[str, dict[str, float]]:
    """Return the best policy's metrics on each final set."""
    sets = dict.fromkeys([*report.final, *report.held_out])
    found = {}
    for name in sets:
        ours = {measure: best for measure, (_, best) in report.held_out.get(name, {}).items()}
        verified = report.final[name][1] if name in report.final else None
        found[name] = _verified(name, verified) | _measured(name, ours)
    return found


def iteration_table(reports: Sequence[IterationReport], measure: str | None) -> list[dict[str, Any]]:
    """The table of iterations, with every measure that any of them has, the deciding one first.

    All rows have all columns.
    """
    there = {name for report in reports for name in report.measures} & MEASURES.keys()
    if measure != SAMPLED_ACCURACY.name:  # it is the column pass@1
        there.discard(SAMPLED_ACCURACY.name)
    shown = sorted(there, key=lambda name: (name != measure, list(MEASURES).index(name)))
    return [_row(report, reports, [MEASURES[name] for name in shown]) for report in reports]


def final_table(report: Report) -> dict[str, dict[str, str]]:
    """Greedy accuracy of verified answers by set: base, best and their difference."""
    return {name: _final_row(*pair) for name, pair in report.final.items()}


def measure_table(report: Report) -> list[dict[str, str]]:
    """Further measures on the final sets: base, best and their difference."""
    rows = []
    for set_name, found in report.held_out.items():
        for name, (base, best) in found.items():
            measure = MEASURES[name]
            if name in (ACCURACY.name, SAMPLED_ACCURACY.name) and name != report.measure:
                continue
            if name == ACCURACY.name and report.final:
                continue
            rows.append(_measure_row(set_name, measure, base, best))
            if (level := at_equal_length(best)) is not None:
                even = Estimated(value=level, rows=best.rows)
                rows.append(_measure_row(set_name, measure, None, even) | {"measure": f"{measure.label}, equal length"})
    return rows


def _measure_row(set_name: str, measure: Measure, base: Estimated | None, best: Estimated) -> dict[str, str]:
    """One row. `clear` is whether the interval excludes the value of no difference: no gain, or even shares."""
    gain = best.against.get("base")
    clear = "" if gain is None else "yes" if gain.excludes_zero else "no"
    if gain is None and measure.even is not None:
        clear = "no" if best.value.low <= measure.even <= best.value.high else "yes"
    return {
        "set": set_name,
        "measure": measure.label,
        "n": str(best.rows),
        "base": measure.shown_interval(base.value) if base else "",
        "best": measure.shown_interval(best.value),
        "gain": measure.shown_interval(gain) if gain else "",
        "clear": clear,
    }


def _row(report: IterationReport, reports: Sequence[IterationReport], shown: Sequence[Measure]) -> dict[str, Any]:
    row: dict[str, Any] = {"iteration": report.iteration, "kept": (report.selection or {}).get("kept")}
    for measure in shown:
        found = report.measures.get(measure.name)
        row[measure.label] = measure.shown_interval(found.value) if found else None
    metrics = [r.validation for r in reports if r.validation]
    here = report.validation
    for k in sorted({k for m in metrics for k in m.pass_at}):
        row[f"pass@{k}"] = f"{here.pass_at[k].value:.1%}" if here and k in here.pass_at else None
    for k in sorted({k for m in metrics for k in m.majority_at}):
        row[f"maj@{k}"] = f"{here.majority_at[k].value:.1%}" if here and k in here.majority_at else None
    compared = [m for m in shown[:1] if (found := report.measures.get(m.name)) and "base" in found.against]
    row["against base"] = "".join(m.shown_interval(report.measures[m.name].against["base"]) for m in compared)
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


def _verified(prefix: str, metrics: SetMetrics | None) -> dict[str, float]:
    if metrics is None:
        return {}
    intervals = {"pass_at_1_greedy": metrics.greedy}
    intervals |= {f"pass_at_{k}": interval for k, interval in metrics.pass_at.items()}
    intervals |= {f"maj_at_{k}": interval for k, interval in metrics.majority_at.items()}
    intervals |= {f"gain_over_{other}": difference for other, difference in metrics.against.items()}
    numbers = {"truncated": metrics.truncated, "mean_tokens": metrics.mean_tokens}
    for name, interval in intervals.items():
        numbers |= _with_bounds(name, interval)
    return {f"{prefix}/{name}": value for name, value in numbers.items()}


def _measured(prefix: str, measures: Mapping[str, Estimated]) -> dict[str, float]:
    """Metrics of all measures except accuracy of verified answers, which has its own names."""
    numbers: dict[str, float] = {}
    for measure, found in measures.items():
        if measure in (ACCURACY.name, SAMPLED_ACCURACY.name):
            continue
        name = f"{prefix}/{measure}"
        numbers |= _with_bounds(name, found.value)
        for other, difference in found.against.items():
            numbers |= _with_bounds(f"{name}_gain_over_{other}", difference)
        numbers |= {f"{name}/{detail}": float(value) for detail, value in found.details.items()}
    return numbers


def _with_bounds(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _source_numbers(iteration: Iteration) -> dict[str, float]:
    """Count the iteration's training rows by the data set of their prompts."""
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
    """Likelihoods of the iteration's pairs under the policy that it started from."""
    if "reference" not in iteration.stages:
        return {}
    found = load_likelihood(iteration.stages["reference"])
    return {
        f"likelihood/{sides}/{name}": float(value)
        for sides, metrics in found.items()
        for name, value in metrics.model_dump().items()
    }
