"""The report of one run as one self-contained page, written from typed records (`tasks/report/content.py`).

Measures nothing and reads no run directory. The sentences about the run are in `tasks/report/findings.py`, the page in
`tasks/report/report.html.j2`, its figures in `tasks/report/figures.py`.
"""

from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.measures import MEASURES
from data.metrics import RESAMPLES
from data.text import visible
from data.wording import duration
from tasks.report import drawing, figures, wording
from tasks.report.content import Report, SideBySide
from tasks.report.figures import name_of, ordered
from tasks.report.findings import at_equal_length, findings
from tasks.report.use import commands, loading_code
from tasks.report.wording import LEVEL, unbroken


def write_report(report: Report, html: Path, png: Path) -> None:
    """Write the report as one HTML file that loads nothing else, and the learning curve as a PNG.

    The same report gives the same bytes.
    """
    curve, verified = figures.learning_curve(report), [i for i in report.iterations if i.validation]
    caption, measure = figures.caption(report), figures.curve_measure(report)
    text = drawing.as_svg(curve, "curve", figures.describe_curve(report)) if measure else ""
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            findings=findings(report),
            caption=caption,
            names={iteration.iteration: name_of(iteration) for iteration in report.iterations},
            verified=verified,
            further=figures.further_measures(report),
            further_finals=figures.further_finals(report),
            details=figures.details(report),
            measures=MEASURES,
            selection=figures.selection(report),
            samples_verdicts=figures.training_verdicts(report),
            validation_verdicts={name_of(i): ordered(i.validation.verdicts) for i in verified if i.validation},
            pass_ks=sorted({k for i in verified if i.validation for k in i.validation.pass_at}),
            majority_ks=sorted({k for i in verified if i.validation for k in i.validation.majority_at}),
            changes=_changes(report.examples),
            seconds={name_of(i): i.seconds for i in report.iterations if i.seconds},
            stages=figures.stages(report),
            total_seconds=sum(second for i in report.iterations for second in i.seconds.values()),
            figures=figures.drawn(report) | {"curve": text},
            level=LEVEL,
            resamples=RESAMPLES,
            result_name=f"best iteration ({report.best_iteration})" if report.measure else "last iteration",
            loading=loading_code(report.checkpoint or ""),
            commands=commands(Path(report.checkpoint).parents[1]) if report.checkpoint else {},
        )
    )
    html.write_bytes(page.encode())
    title = [f"{report.algorithm} · {report.run} · validation", unbroken(f"{caption}; {LEVEL} intervals")]
    drawing.write_png(curve, png, title)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # prompts and answers are untrusted text
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": wording.percent,
        "range": wording.value_range,
        "points": wording.points,
        "unbroken": unbroken,
        "duration": duration,
        "label": wording.detail_label,
        "count": lambda value: f"{value:,}",
        "direction": wording.direction,
        "at_equal_length": at_equal_length,
        "shown": lambda value, measure: wording.shown(measure, value),
        "shown_range": lambda value, measure: wording.shown_range(measure, value),
        "shown_difference": lambda value, measure: wording.shown_difference(measure, value),
        "above": lambda value, measure: wording.above(measure, value),
    }
    return environment


def _changes(examples: list[SideBySide]) -> dict[str, int]:
    """Count the examples that the final policy gained, lost, or did not change against the base."""
    right = Counter((example.base.verdict == "correct", example.final.verdict == "correct") for example in examples)
    return {
        "gained": right[False, True],
        "lost": right[True, False],
        "both": right[True, True],
        "neither": right[False, False],
    }
