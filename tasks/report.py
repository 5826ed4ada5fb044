"""The report of one run: its content as typed records, and the one self-contained page written from them.

Measures nothing and reads no run directory: the caller hands over what the stages wrote. How the page reads is in
`tasks/report.html.j2`, how its figures are drawn in `tasks/figures.py`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.metrics import CONFIDENCE, RESAMPLES, Interval, SetMetrics
from data.overlap import Repeated
from data.text import visible
from tasks import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = f"{100 * CONFIDENCE:g} %"
VERDICTS = ["correct", "wrong", "unparsable", "timeout", "error"]
UNACCOUNTED = "unaccounted for"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IterationReport(_Record):
    """One iteration. Iteration 0 is the base policy: it is evaluated, but nothing was sampled or trained for it."""

    iteration: int
    validation: SetMetrics = Field(description='`against` may hold "base" and "previous".')
    selection: dict[str, int] | None = Field(None, description='"samples", "kept", and a count per reason to drop.')
    verdicts: dict[str, int] | None = Field(None, description="Verdicts of the training samples.")
    coverage_gained: int | None = Field(None, description="Validation problems solved now that the base did not solve.")
    coverage_lost: int | None = Field(None, description="Validation problems that the base solved, not solved now.")
    seconds: dict[str, float] = Field(default_factory=dict, description="Seconds per stage.")


class Answer(_Record):
    """What a policy answered, and what the verifier said to it."""

    text: str
    verdict: str


class SideBySide(_Record):
    """One problem answered by the base policy and by the final one."""

    prompt: str
    reference: str
    base: Answer
    final: Answer


class DataReport(_Record):
    """The problems of a run."""

    sources: dict[str, dict[str, int]] = Field(description="Set name -> data set -> problems.")
    dropped: dict[str, int] = Field(description="Rows left out, by reason.")
    files: dict[str, int] = Field(default_factory=dict, description="The first files read -> rows.")
    skipped: dict[str, str] = Field(default_factory=dict, description="The first files not read -> why.")
    noticed: dict[str, int] = Field(description="Rows that something was noticed of, by what.")
    repeated: list[Repeated] = Field(description="The first prompts that repeat another one.")


class Report(_Record):
    """Everything that the report of one run shows."""

    algorithm: str
    run: str
    status: str
    best_iteration: int
    stop_reason: str
    iterations: list[IterationReport]
    final: dict[str, tuple[SetMetrics, SetMetrics]] = Field(
        description='Set name -> metrics of the base and of the best policy; `against["base"]` compares the latter.'
    )
    examples: list[SideBySide]
    data: DataReport | None = None
    config: str
    command: str
    versions: dict[str, str]
    mlflow: str
    extra_curves: dict[str, list[Interval | float | None]] = Field(
        default_factory=dict, description="Further curves of an algorithm, with one value per entry of `iterations`."
    )

    @model_validator(mode="after")
    def _curves_cover_the_iterations(self) -> Self:
        for name, values in self.extra_curves.items():
            if len(values) != len(self.iterations):
                raise ValueError(
                    f"Curve {name!r} has {len(values)} values for {len(self.iterations)} iterations. "
                    "Give one per iteration, None where there is none."
                )
        return self


class Finding(_Record):
    """What the run came to on one set of problems, in numbers and in a sentence."""

    set_name: str
    direction: Literal["higher", "lower", "no clear difference", "not compared"]
    sentence: str


def findings(report: Report) -> list[Finding]:
    """One finding per final set, the headline first; without final sets, one on validation, marked as such."""
    if report.final:
        return [_finding(report, name, base, best) for name, (base, best) in report.final.items()]
    by_number = {iteration.iteration: iteration.validation for iteration in report.iterations}
    if 0 not in by_number or report.best_iteration not in by_number:
        return []
    found = _finding(report, "validation", by_number[0], by_number[report.best_iteration])
    caution = " No set kept aside has been evaluated, and the best iteration was chosen on this one."
    return [found.model_copy(update={"sentence": found.sentence + caution})]


def write_report(report: Report, html: Path, png: Path) -> None:
    """Write the report as one HTML file that loads nothing else, and the learning curve as a PNG.

    The same report gives the same bytes.
    """
    curve = _learning_curve(report)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # prompts and answers are untrusted text
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "range": _range,
        "points": _points,
        "unbroken": _unbroken,
        "duration": _duration,
        "count": lambda value: f"{value:,}",
        "direction": _direction,
    }
    page = environment.get_template("report.html.j2").render(
        report=report,
        findings=findings(report),
        settings=_settings(report),
        names={iteration.iteration: _name(iteration) for iteration in report.iterations},
        selection=_selection(report),
        samples_verdicts=_training_verdicts(report),
        validation_verdicts={_name(i): _ordered(i.validation.verdicts) for i in report.iterations},
        pass_ks=sorted({k for i in report.iterations for k in i.validation.pass_at}),
        majority_ks=sorted({k for i in report.iterations for k in i.validation.majority_at}),
        changes=_changes(report.examples),
        seconds={_name(i): i.seconds for i in report.iterations if i.seconds},
        stages=_stages(report),
        total_seconds=sum(second for i in report.iterations for second in i.seconds.values()),
        figures=_figures(report) | {"curve": figures.as_svg(curve, "curve", _describe_curve(report))},
        level=LEVEL,
        resamples=RESAMPLES,
    )
    html.write_bytes(page.encode())
    title = [f"{report.algorithm} · {report.run} · validation", _unbroken(f"{_settings(report)}; {LEVEL} intervals")]
    figures.write_png(curve, png, title)


def _finding(report: Report, name: str, base: SetMetrics, best: SetMetrics) -> Finding:
    how = f"n = {best.problems:,}, greedy"
    before, after = _percent(base.greedy.value), _percent(best.greedy.value)
    if report.best_iteration == 0:
        sentence = (
            f"No iteration of {report.algorithm} did better than the base policy, which remains the result: "
            f"{name} accuracy {before}, {LEVEL} interval {_range(base.greedy)}, {how}."
        )
        return Finding(set_name=name, direction="not compared", sentence=sentence)
    difference = best.against.get("base")
    if difference is None:
        sentence = (
            f"{report.algorithm}: {name} accuracy was {before} {_range(base.greedy)} for the base and is {after} "
            f"{_range(best.greedy)} for the best iteration, {how}; the two were not compared problem by problem."
        )
        return Finding(set_name=name, direction="not compared", sentence=sentence)
    direction = _direction(difference)
    verb = {"higher": "raised", "lower": "lowered"}.get(direction, "took")
    sentence = (
        f"{report.algorithm} {verb} {name} accuracy from {before} to {after}: {_points(difference.value)} points, "
        f"{LEVEL} interval {_range(difference)}, {how}."
    )
    if direction == "no clear difference":
        sentence += " The interval includes zero: the difference is not distinguishable from zero."
    return Finding(set_name=name, direction=direction, sentence=sentence)


def _direction(difference: Interval) -> Literal["higher", "lower", "no clear difference"]:
    if not difference.excludes_zero:
        return "no clear difference"
    return "higher" if difference.value > 0 else "lower"


def _figures(report: Report) -> dict[str, str]:
    """The figures beside the learning curve, as SVG; an empty string where there is nothing to draw."""
    names = [_name(iteration) for iteration in report.iterations]
    drawn = dict.fromkeys(["differences", "selection", "verdicts", "coverage", "panels", "seconds"], "")
    compared = {
        f"{name}, n = {best.problems:,}": best.against["base"]
        for name, (_, best) in report.final.items()
        if "base" in best.against
    }
    if compared:
        text = "; ".join(f"{name}: {_points(d.value)} points, interval {_range(d)}" for name, d in compared.items())
        drawn["differences"] = figures.as_svg(figures.differences(compared), "differences", text)
    time, unit = _time_in_one_unit(report)
    bars: dict[str, tuple[Mapping[str, Mapping[str, float]], str, str]] = {
        "selection": (_selection(report), "samples", "Training samples kept and dropped per iteration"),
        "verdicts": (_training_verdicts(report), "samples", "Verdicts of the training samples per iteration"),
        "seconds": (time, unit, f"Time per stage and iteration in {unit}"),
    }
    for key, (rows, scale, text) in bars.items():
        if any(value > 0 for row in rows.values() for value in row.values()):
            text += "; the numbers are in the table below."
            drawn[key] = figures.as_svg(figures.stacked_bars(rows, scale), key, text)
    covered = [(_name(i), i.coverage_gained or 0, i.coverage_lost or 0) for i in report.iterations if _has_coverage(i)]
    if covered:
        labels, gained, lost = zip(*covered, strict=True)
        text = "; ".join(f"iteration {label}: {up} gained, {down} lost" for label, up, down in covered)
        drawn["coverage"] = figures.as_svg(figures.gained_and_lost(labels, gained, lost), "coverage", text)
    curves: dict[str, list[Interval | float | None]] = {
        "mean answer length, tokens": [i.validation.mean_tokens for i in report.iterations],
        "truncated answers, %": [100 * i.validation.truncated for i in report.iterations],
    }
    curves |= report.extra_curves
    text = f"Line charts across iterations: {', '.join(curves)}."
    drawn["panels"] = figures.as_svg(figures.panels(names, curves), "panels", text)
    return drawn


def _series(report: Report) -> dict[str, list[Interval | None]]:
    """The lines of the learning curve: greedy pass@1, pass@k for the largest k, maj@k."""
    metrics = [iteration.validation for iteration in report.iterations]
    series: dict[str, list[Interval | None]] = {"pass@1 greedy": [m.greedy for m in metrics]}
    if largest := max((k for m in metrics for k in m.pass_at), default=None):
        series[f"pass@{largest}"] = [m.pass_at.get(largest) for m in metrics]
    if votes := max((k for m in metrics for k in m.majority_at), default=None):
        series[f"maj@{votes}"] = [m.majority_at.get(votes) for m in metrics]
    return series


def _learning_curve(report: Report) -> "Figure":
    numbers = [iteration.iteration for iteration in report.iterations]
    best = numbers.index(report.best_iteration) if report.best_iteration in numbers else None
    return figures.learning_curve([_name(iteration) for iteration in report.iterations], _series(report), best)


def _describe_curve(report: Report) -> str:
    lines = []
    for name, values in _series(report).items():
        pairs = zip(report.iterations, values, strict=True)
        lines.append(f"{name}: " + ", ".join(f"{_name(i)} {_percent(v.value)}" for i, v in pairs if v))
    return f"Line chart on validation. {'; '.join(lines)}. Best iteration: {report.best_iteration}."


def _settings(report: Report) -> str:
    """n, k, temperature of the validation figures, in words; several when they changed between iterations."""
    return "; ".join(_unique(_setting(i.validation) for i in report.iterations)) or "no policy evaluated"


def _setting(metrics: SetMetrics) -> str:
    greedy = f"n = {metrics.problems:,} problems, pass@1 greedy (k = 1, temperature 0)"
    if not metrics.pass_at and not metrics.majority_at:
        return greedy
    names = [f"{kind}@{max(at)}" for kind, at in [("pass", metrics.pass_at), ("maj", metrics.majority_at)] if at]
    sampling = f"{metrics.samples_per_problem} samples per problem at temperature {metrics.temperature:g}"
    return f"{greedy}; {' and '.join(names)} from {sampling}, top-p {metrics.top_p:g}"


def _selection(report: Report) -> dict[str, dict[str, int]]:
    """Per iteration, the parts into which its samples fell. Whatever no reason accounts for is a part of its own."""
    rows = {}
    for iteration in report.iterations:
        if iteration.selection is None:
            continue
        parts = {key.replace("_", " "): count for key, count in iteration.selection.items() if key != "samples"}
        rest = iteration.selection.get("samples", 0) - sum(parts.values())
        rows[_name(iteration)] = parts | ({UNACCOUNTED: rest} if rest > 0 else {})
    return rows


def _training_verdicts(report: Report) -> dict[str, dict[str, int]]:
    return {_name(i): _ordered(i.verdicts) for i in report.iterations if i.verdicts}


def _changes(examples: list[SideBySide]) -> dict[str, int]:
    """How many of the examples the final policy gained or lost against the base, in the four ways that it can go."""
    right = Counter((example.base.verdict == "correct", example.final.verdict == "correct") for example in examples)
    return {
        "gained": right[False, True],
        "lost": right[True, False],
        "both": right[True, True],
        "neither": right[False, False],
    }


def _time_in_one_unit(report: Report) -> tuple[dict[str, dict[str, float]], str]:
    """Time per iteration and stage in the unit that suits the longest iteration, and that unit."""
    longest = max((sum(i.seconds.values()) for i in report.iterations), default=0)
    size, unit = next(
        (s, u) for s, u in [(3600, "hours"), (60, "minutes"), (1, "seconds")] if longest >= 3 * s or s == 1
    )
    stages = _stages(report)
    rows = {_name(i): {k: i.seconds.get(k, 0) / size for k in stages} for i in report.iterations if i.seconds}
    return rows, unit


def _stages(report: Report) -> list[str]:
    """Stages in the order in which the fullest iteration ran them: the base runs only some."""
    fullest_first = sorted(report.iterations, key=lambda iteration: -len(iteration.seconds))
    return _unique(stage for iteration in fullest_first for stage in iteration.seconds)


def _ordered(verdicts: Mapping[str, int]) -> dict[str, int]:
    known = [name for name in VERDICTS if name in verdicts]
    return {name: verdicts[name] for name in _unique([*known, *verdicts])}


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _has_coverage(iteration: IterationReport) -> bool:
    return iteration.coverage_gained is not None or iteration.coverage_lost is not None


def _name(iteration: IterationReport) -> str:
    return "base" if iteration.iteration == 0 else str(iteration.iteration)


def _percent(share: float) -> str:
    return f"{100 * share:z.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+z.1f}".replace("-", "−")


def _range(interval: Interval) -> str:
    """The two ends of an interval, in percent or in percentage points."""
    return f"[{100 * interval.low:z.1f}, {100 * interval.high:z.1f}]".replace("-", "−")


def _unbroken(text: str) -> str:
    """The text with no-break spaces where a line should not end: between number and unit, and within "n = 5"."""
    text = text.replace("top-p", "top\u2011p")
    return re.sub(r"(?<=\d) (?=%|points)|(?<=,) (?=[−\d.]+\])|(?<=\b[nk]) (?==)|(?<==) (?=\d)", "\u00a0", text)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
