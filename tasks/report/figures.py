"""The figures of a report: which numbers each one shows, and its description in words."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from data.judging import ENTROPY, WITH_ITSELF, WITH_LENGTH
from data.measures import ACCURACY, MEASURES, PAIR_ACCURACY, PROXY, SAMPLED_ACCURACY, WIN_RATE, Estimated, Measure
from data.metrics import Interval
from tasks.report import drawing
from tasks.report.content import IterationReport, Report
from tasks.report.findings import CONTROLLED, at_equal_length, headline
from tasks.report.wording import detail_label, percent, points, shown, shown_difference, shown_range, value_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VERDICTS = ["correct", "wrong", "unparsable", "timeout", "error"]
UNACCOUNTED = "unaccounted for"
VERIFIED = (ACCURACY.name, SAMPLED_ACCURACY.name)  # shown in the tables of verified answers
# Details of measures that get a small chart; the others are only in the table.
PLOTTED = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "mean_tokens",
    "gold_tokens",
    "length_ratio",
    "repeated",
    "ended",
    ENTROPY,
    WITH_ITSELF,
    WITH_LENGTH,
)
EVEN_LENGTH = "win rate at equal length, %"
Curves = dict[str, list[Interval | float | None]]


def drawn(report: Report) -> dict[str, str]:
    """Return all figures but the learning curve, as SVG; an empty string if there is nothing to draw."""
    found = dict.fromkeys(
        ["differences", "selection", "verdicts", "coverage", "panels", "seconds", "training", "proxy"], ""
    )
    found |= _differences(report)
    time, unit = _time_in_one_unit(report)
    bars: dict[str, tuple[Mapping[str, Mapping[str, float]], str, str]] = {
        "selection": (selection(report), "samples", "Training samples kept and dropped per iteration"),
        "verdicts": (training_verdicts(report), "samples", "Verdicts of the training samples per iteration"),
        "seconds": (time, unit, f"Time per stage and iteration in {unit}"),
    }
    for key, (rows, scale, text) in bars.items():
        if any(value > 0 for row in rows.values() for value in row.values()):
            text += "; the numbers are in the table below."
            found[key] = drawing.as_svg(drawing.stacked_bars(rows, scale), key, text)
    covered = [(name_of(i), i.coverage_gained or 0, i.coverage_lost or 0) for i in report.iterations if _covers(i)]
    if covered:
        labels, gained, lost = zip(*covered, strict=True)
        text = "; ".join(f"iteration {label}: {up} gained, {down} lost" for label, up, down in covered)
        found["coverage"] = drawing.as_svg(drawing.gained_and_lost(labels, gained, lost), "coverage", text)
    curves = panel_curves(report)
    if curves:
        names = [name_of(iteration) for iteration in report.iterations]
        text = f"Line charts across iterations: {', '.join(curves)}."
        even = {_panel_name(m): 100 * m.even for m in _panel_measures(report) if m.even is not None}
        even |= {EVEN_LENGTH: 50.0} if EVEN_LENGTH in curves else {}
        fitted = [_panel_name(m) for m in _panel_measures(report) if m.unit != "percent"]
        found["panels"] = drawing.as_svg(drawing.panels(names, curves, even, fitted), "panels", text)
    if len(went := overoptimization(report)) > 1:
        text = "; ".join(
            f"iteration {at}: proxy {p.value:.3f}, gold {percent(g.value)}" for at, (_, p, g) in went.items()
        )
        best = [(one.kl, one.proxy, one.gold) for one in report.best_of]
        found["proxy"] = drawing.as_svg(drawing.overoptimization(list(went.values()), best), "proxy", text)
    if report.while_training:
        text = f"Line charts over optimizer steps: {', '.join(report.while_training)}."
        found["training"] = drawing.as_svg(drawing.training_panels(report.while_training), "training", text)
    return found


def learning_curve(report: Report) -> "Figure":
    numbers = [iteration.iteration for iteration in report.iterations]
    best = numbers.index(report.best_iteration) if report.best_iteration in numbers else None
    labels, measure = [name_of(iteration) for iteration in report.iterations], curve_measure(report)
    mark = "best" if report.measure else "result"
    if measure is None or measure.name in VERIFIED:
        return drawing.learning_curve(labels, _series(report), best, mark=mark)
    scale = f"{measure.label}, nats" if measure.unit == "nats" else measure.label
    return drawing.learning_curve(labels, _series(report), best, scale, measure.unit == "percent", measure.even, mark)


def curve_measure(report: Report) -> Measure | None:
    """The measure of the learning curve: the deciding one, or the first; None if no iteration was measured."""
    first = headline(report)
    there = [name for i in report.iterations for name in (*i.measures, *VERIFIED[: 1 if i.validation else 0])]
    name = first if first in there else next(iter(there), None)
    return MEASURES[name] if name is not None else None


def describe_curve(report: Report) -> str:
    measure, lines = curve_measure(report) or ACCURACY, []
    for name, values in _series(report).items():
        pairs = zip(report.iterations, values, strict=True)
        lines.append(f"{name}: " + ", ".join(f"{name_of(i)} {shown(measure, v.value)}" for i, v in pairs if v))
    best = "Best" if report.measure else "Last"
    return f"Line chart on validation. {'; '.join(lines)}. {best} iteration: {report.best_iteration}."


def panel_curves(report: Report) -> Curves:
    """The small charts across iterations: of verified answers, of further measures, of the algorithm."""
    curves: Curves = {}
    verified = [iteration.validation for iteration in report.iterations]
    if any(verified):
        curves["mean answer length, tokens"] = [v.mean_tokens if v else None for v in verified]
        curves["truncated answers, %"] = [100 * v.truncated if v else None for v in verified]
    for measure in _panel_measures(report):
        size = 100 if measure.unit == "percent" else 1
        curves[_panel_name(measure)] = [_scaled(value, size) for value in _values(report, measure)]
    level = [_scaled(_equal_length(i), 100) for i in report.iterations]
    if any(level):
        curves[EVEN_LENGTH] = list(level)
    for (measure_name, detail), values in details(report).items():
        if detail in PLOTTED:
            curves[f"{detail_label(detail)}, of {MEASURES[measure_name].rows}"] = list(values)
    return curves | report.extra_curves


def details(report: Report) -> dict[tuple[str, str], list[float | None]]:
    """Details of the measures, by measure and name, with one value per iteration."""
    names = dict.fromkeys(
        (name, detail)
        for i in report.iterations
        for name, found in i.measures.items()
        for detail in found.details
        if name in MEASURES and not detail.startswith(CONTROLLED)
    )
    return {
        (name, detail): [
            i.measures[name].details.get(detail) if name in i.measures else None for i in report.iterations
        ]
        for name, detail in names
    }


def overoptimization(report: Report) -> dict[str, tuple[float, Interval, Interval]]:
    """By iteration: nats per answer from the base, the reward that is optimized, and gold on the same answers."""
    found = {}
    for iteration in report.iterations:
        proxy, gold = (iteration.measures.get(measure.name) for measure in (PROXY, SAMPLED_ACCURACY))
        if proxy and gold:
            found[name_of(iteration)] = proxy.details["kl"], proxy.value, gold.value
    return found


def further_measures(report: Report) -> list[Measure]:
    """The measures of the iterations that no table of verified answers shows, the deciding one first."""
    there = {name for i in report.iterations for name in i.measures}
    there -= {name for name in VERIFIED if name != report.measure or name == ACCURACY.name}
    return sorted((MEASURES[n] for n in there & MEASURES.keys()), key=lambda m: (m.name != report.measure, _place(m)))


def further_finals(report: Report) -> dict[str, dict[str, tuple[Estimated | None, Estimated]]]:
    """The measures of the final sets that the table of verified answers there does not show."""
    shown = {name for name in VERIFIED if name != report.measure or name == ACCURACY.name} if report.final else set()
    left = {
        name: {key: pair for key, pair in found.items() if key in MEASURES and key not in shown}
        for name, found in report.held_out.items()
    }
    return {name: found for name, found in left.items() if found}


def selection(report: Report) -> dict[str, dict[str, int]]:
    """Samples per iteration, kept and dropped by reason. Samples without a reason are a part of their own."""
    rows = {}
    for iteration in report.iterations:
        if iteration.selection is None:
            continue
        parts = {key.replace("_", " "): count for key, count in iteration.selection.items() if key != "samples"}
        rest = iteration.selection.get("samples", 0) - sum(parts.values())
        rows[name_of(iteration)] = parts | ({UNACCOUNTED: rest} if rest > 0 else {})
    return rows


def training_verdicts(report: Report) -> dict[str, dict[str, int]]:
    return {name_of(i): ordered(i.verdicts) for i in report.iterations if i.verdicts}


def stages(report: Report) -> list[str]:
    """Stages in the order of the iteration with the most stages: the base runs only some."""
    fullest_first = sorted(report.iterations, key=lambda iteration: -len(iteration.seconds))
    return unique(stage for iteration in fullest_first for stage in iteration.seconds)


def ordered(verdicts: Mapping[str, int]) -> dict[str, int]:
    known = [name for name in VERDICTS if name in verdicts]
    return {name: verdicts[name] for name in unique([*known, *verdicts])}


def unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def name_of(iteration: IterationReport) -> str:
    return "base" if iteration.iteration == 0 else str(iteration.iteration)


def _series(report: Report) -> dict[str, list[Interval | None]]:
    """The lines of the learning curve: greedy pass@1, pass@k for the largest k, maj@k; or a single measure's."""
    series: dict[str, list[Interval | None]]
    measure = curve_measure(report)
    if measure is not None and measure.name not in VERIFIED:
        series = {measure.label: _values(report, measure)}
        if any(levels := [_equal_length(i) for i in report.iterations]) and measure.name == "win_rate":
            series["at equal length"] = levels
        return series
    metrics = [iteration.validation for iteration in report.iterations]
    series = {"pass@1 greedy": [m.greedy if m else None for m in metrics]}
    if largest := max((k for m in metrics if m for k in m.pass_at), default=None):
        series[f"pass@{largest}"] = [m.pass_at.get(largest) if m else None for m in metrics]
    if votes := max((k for m in metrics if m for k in m.majority_at), default=None):
        series[f"maj@{votes}"] = [m.majority_at.get(votes) if m else None for m in metrics]
    return series


def _differences(report: Report) -> dict[str, str]:
    """The differences of greedy accuracy if answers were verified, otherwise of the headline measure, if any."""
    compared = {
        f"{name}, n = {best.problems:,}": best.against["base"]
        for name, (_, best) in report.final.items()
        if "base" in best.against
    }
    if compared:
        text = "; ".join(f"{n}: {points(d.value)} points, interval {value_range(d)}" for n, d in compared.items())
        return {"differences": drawing.as_svg(drawing.differences(compared), "differences", text)}
    measure = MEASURES[name] if (name := headline(report)) else ACCURACY
    there = {name: found[measure.name][1] for name, found in report.held_out.items() if measure.name in found}
    compared = {f"{n}, n = {f.rows:,}": f.against["base"] for n, f in there.items() if "base" in f.against}
    if not compared:
        return {}
    lines = [f"{n}: {shown_difference(measure, d.value)}, {shown_range(measure, d)}" for n, d in compared.items()]
    unit = (100.0, "percentage points") if measure.unit == "percent" else (1.0, "nats per token")
    return {"differences": drawing.as_svg(drawing.differences(compared, *unit), "differences", "; ".join(lines))}


def _panel_measures(report: Report) -> list[Measure]:
    """Measures with a small chart: those that the learning curve does not show."""
    shown_above = curve_measure(report)
    return [measure for measure in further_measures(report) if measure != shown_above]


def _panel_name(measure: Measure) -> str:
    return (
        measure.label if measure.unit == "reward" else f"{measure.label}, {'nats' if measure.unit == 'nats' else '%'}"
    )


def _values(report: Report, measure: Measure) -> list[Interval | None]:
    """A measure across the iterations. The base against itself is even, without measuring."""
    found = [i.measures[measure.name].value if measure.name in i.measures else None for i in report.iterations]
    against_base = measure == PAIR_ACCURACY or (measure == WIN_RATE and report.rival == "base")
    if against_base and measure.even is not None and found and found[0] is None and report.iterations[0].iteration == 0:
        found[0] = Interval(value=measure.even, low=measure.even, high=measure.even)
    return found


def _scaled(interval: Interval | None, by: float) -> Interval | None:
    if interval is None:
        return None
    return Interval(value=by * interval.value, low=by * interval.low, high=by * interval.high)


def _equal_length(iteration: IterationReport) -> Interval | None:
    return at_equal_length(iteration.measures["win_rate"]) if "win_rate" in iteration.measures else None


def _place(measure: Measure) -> int:
    return list(MEASURES).index(measure.name)


def _time_in_one_unit(report: Report) -> tuple[dict[str, dict[str, float]], str]:
    """Time per iteration and stage in the unit that suits the longest iteration, and that unit."""
    longest = max((sum(i.seconds.values()) for i in report.iterations), default=0)
    size, unit = next(
        (s, u) for s, u in [(3600, "hours"), (60, "minutes"), (1, "seconds")] if longest >= 3 * s or s == 1
    )
    rows = {name_of(i): {k: i.seconds.get(k, 0) / size for k in stages(report)} for i in report.iterations if i.seconds}
    return rows, unit


def _covers(iteration: IterationReport) -> bool:
    return iteration.coverage_gained is not None or iteration.coverage_lost is not None


def caption(report: Report) -> str:
    """Describe what the learning curve was measured on; several descriptions if it changed between iterations."""
    measure = curve_measure(report)
    if measure is None:
        return "no policy was measured"
    if measure.name in VERIFIED:
        return "; ".join(unique(_setting(i) for i in report.iterations if i.validation))
    found = [i.measures[measure.name] for i in report.iterations if measure.name in i.measures]
    direction = "" if measure.higher_is_better else ", lower is better"
    even = "" if measure.even is None else f"; the dotted line at {percent(measure.even)} means no difference"
    return "; ".join(unique(f"{measure.label}, n = {f.rows:,} {measure.rows}{direction}" for f in found)) + even


def _setting(iteration: IterationReport) -> str:
    metrics = iteration.validation
    assert metrics is not None
    greedy = f"n = {metrics.problems:,} problems, pass@1 greedy (k = 1, temperature 0)"
    if not metrics.pass_at and not metrics.majority_at:
        return greedy
    names = [f"{kind}@{max(at)}" for kind, at in [("pass", metrics.pass_at), ("maj", metrics.majority_at)] if at]
    sampling = f"{metrics.samples_per_problem} samples per problem at temperature {metrics.temperature:g}"
    return f"{greedy}; {' and '.join(names)} from {sampling}, top-p {metrics.top_p:g}"
