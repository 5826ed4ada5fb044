"""The figures of a report, drawn with matplotlib from plain numbers. `tasks/report/figures.py` chooses the numbers.

Each function builds a standalone `Figure`; pyplot and its registry of open figures are not used.
Color is never the only cue: lines differ in marker and dash, bars have numbers and a legend.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from math import ceil, sqrt
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from data.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.4  # inches: at this width the text stays legible when a phone shows the figure
INK, MUTED, GRID = "#1d2330", "#5b6472", "#e3e6eb"
LINES = [("#1d5fb4", "o", "-"), ("#b4521a", "s", "--"), ("#0f7a5a", "^", "-."), ("#7a4fa3", "D", ":")]
PART_COLOURS = {
    "kept": "#0f7a5a",
    "correct": "#0f7a5a",
    "wrong": "#d1683f",
    "duplicate": "#6f9fd8",
    "over limit": "#b9c8dc",
    "truncated": "#8a5a9e",
    "unparsable": "#e0b04a",
    "timeout": "#8a5a9e",
    "error": "#3c4454",
}
OTHER_COLOURS = ["#1d5fb4", "#e0b04a", "#0f7a5a", "#d1683f", "#8a5a9e", "#6f9fd8", "#98a2b3", "#3c4454"]
MOST_MARKERS = 30  # on a line
NO_LINES: Mapping[str, float] = {}
STYLE = {
    "font.size": 10.5,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",  # the page's own color shows, in the dark as well
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # run and stage names may contain dollar signs
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "autodidact",
}


def learning_curve(
    labels: Sequence[str],
    series: Mapping[str, Sequence[Interval | None]],
    best: int | None,
    scale: str = "problems solved",
    share: bool = True,
    even: float | None = None,
    mark: str = "best",
) -> "Figure":
    """Values across iterations with their intervals as bands; `best` is the position of the best iteration.

    Args:
        scale: label of the y axis.
        share: whether values are shares of one, shown in percent.
        even: the value of no difference, where a line is drawn.
        mark: label of the best iteration.
    """
    with _style():
        figure, axes = _new(WIDTH, 3.9)
        for (name, values), (colour, marker, dash) in zip(series.items(), LINES, strict=False):
            points = [(at, value) for at, value in enumerate(values) if value is not None]
            if not points:
                continue
            at = [position for position, _ in points]
            low, high = [v.low for _, v in points], [v.high for _, v in points]
            axes.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.vlines(at, low, high, color=colour, linewidth=1, alpha=0.6)
            axes.plot(at, [v.value for _, v in points], color=colour, marker=marker, linestyle=dash, label=name)
        if best is not None:
            axes.axvline(best, color=MUTED, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)
            axes.annotate(
                f"{mark}: {labels[best]}",
                (best, 1),
                xytext=(0, 3),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
            )
        _iteration_axis(axes, labels)
        axes.grid(visible=False, axis="x")
        if share:
            _percent_axis(axes)
        if even is not None:
            _even_line(axes, even)
        axes.set_ylabel(scale)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=3)
    return figure


def panels(
    labels: Sequence[str],
    curves: Mapping[str, Sequence[Interval | float | None]],
    even: Mapping[str, float] = NO_LINES,
    fitted: Collection[str] = (),
) -> "Figure":
    """One small line chart per curve, each with its own scale.

    Args:
        even: curves with their value of no difference, where a line is drawn.
        fitted: curves whose scale need not start at zero.
    """
    with _style():
        rows = ceil(len(curves) / 2)
        figure = _figure(WIDTH, 2.3 * rows)
        for place, (name, values) in enumerate(curves.items(), start=1):
            axes = figure.add_subplot(rows, 2, place)
            points = [(at, value) for at, value in enumerate(values) if value is not None]
            middles = [value.value if isinstance(value, Interval) else value for _, value in points]
            colour = LINES[0][0]
            axes.plot([at for at, _ in points], middles, color=colour, marker="o", markersize=4)
            ranges = [(at, value) for at, value in points if isinstance(value, Interval)]
            axes.vlines([at for at, _ in ranges], [v.low for _, v in ranges], [v.high for _, v in ranges], color=colour)
            axes.set_title(fill(name, 28), loc="left", fontsize=10.5)
            if name in even:
                _even_line(axes, even[name])
            zero = [] if name in fitted and points else [0.0]
            low = min([*zero, *middles, *(value.low for _, value in ranges)])
            high = max([*zero, *middles, *(value.high for _, value in ranges)])
            room = 0.08 * (high - low) or 1
            axes.set_ylim(low - room if low < 0 or not zero else 0, high + room)
            _iteration_axis(axes, labels)
    return figure


def training_panels(curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> "Figure":
    """One small chart per metric over optimizer steps, with a line per iteration."""
    with _style():
        rows = ceil(len(curves) / 2)
        figure = _figure(WIDTH, 2.3 * rows + 0.4)
        names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
        looks = {name: LINES[at % len(LINES)] for at, name in enumerate(names)}
        for place, (metric, lines) in enumerate(curves.items(), start=1):
            axes = figure.add_subplot(rows, 2, place)
            for name, points in lines.items():
                colour, marker, dash = looks[name]
                steps, values = zip(*points, strict=True)
                marker = marker if len(points) <= MOST_MARKERS else ""
                label = f"iteration {name}" if place == 1 else None
                axes.plot(steps, values, color=colour, marker=marker, markersize=4, linestyle=dash, label=label)
            axes.set_title(fill(metric, 28), loc="left", fontsize=10.5)
            axes.set_xlabel("optimizer step")
            axes.locator_params(axis="x", integer=True, nbins=5)
        if len(names) > 1:
            figure.legend(loc="outside lower center", ncols=3)
    return figure


def overoptimization(
    went: Sequence[tuple[float, Interval, Interval]], best_of: Sequence[tuple[float, float, float]]
) -> "Figure":
    """What is optimized and gold, side by side over √KL, for training and for the best of n answers of the base.

    Args:
        went: by iteration, nats per answer, the reward that is optimized, and gold.
        best_of: the same of the best of 1, 2, 4, … answers.
    """
    with _style():
        figure = _figure(WIDTH, 3.4)
        for place, scale in enumerate(("proxy reward", "gold: sampled pass@1"), start=1):
            axes = figure.add_subplot(1, 2, place)
            at, found = [sqrt(max(point[0], 0)) for point in went], [point[place] for point in went]
            (colour, marker, dash), (other, other_marker, other_dash) = LINES[:2]
            middles = [value.value for value in found]  # type: ignore[union-attr]
            axes.vlines(at, [v.low for v in found], [v.high for v in found], color=colour)  # type: ignore[union-attr]
            axes.plot(at, middles, color=colour, marker=marker, linestyle=dash, label="training" * (place == 1))
            if best_of:
                places = [sqrt(point[0]) for point in best_of]
                values = [point[place] for point in best_of]
                look: dict[str, Any] = {"color": other, "marker": other_marker, "linestyle": other_dash}
                axes.plot(places, values, label="best of n answers of the base" * (place == 1), **look)
            axes.set_title(scale, loc="left", fontsize=10.5)
            axes.set_xlabel("√KL, √nats per answer", fontsize=9)
            axes.locator_params(nbins=6, steps=[1, 2, 5, 10])
            if place == 2:
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def stacked_bars(rows: Mapping[str, Mapping[str, float]], scale: str) -> "Figure":
    """One horizontal bar per row, split into its parts; parts that are zero everywhere are left out."""
    with _style():
        figure, axes = _new(WIDTH, 1.5 + 0.42 * len(rows))
        parts = [part for part in dict.fromkeys(p for row in rows.values() for p in row) if _any(rows, part)]
        largest = max((sum(row.values()) for row in rows.values()), default=0)
        left = [0.0] * len(rows)
        spare = iter(OTHER_COLOURS * len(parts))
        for part in parts:
            widths = [float(row.get(part, 0)) for row in rows.values()]
            colour = PART_COLOURS.get(part) or next(spare)
            bars = axes.barh(
                range(len(rows)), widths, left=left, color=colour, label=_brief(part), height=0.66, edgecolor="white"
            )
            texts = [_short(width) if width > largest * 0.11 else "" for width in widths]
            axes.bar_label(bars, texts, label_type="center", color=_readable_on(colour), fontsize=9)
            left = [start + width for start, width in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel(scale)
        axes.set_ylabel("iteration")
        if parts:
            figure.legend(loc="outside lower center", ncols=3)
    return figure


def gained_and_lost(labels: Sequence[str], gained: Sequence[int], lost: Sequence[int]) -> "Figure":
    """Bars upward for problems newly solved, downward for problems no longer solved."""
    with _style():
        figure, axes = _new(WIDTH, 3.2)
        at = range(len(labels))
        up = axes.bar(at, gained, color=PART_COLOURS["correct"], width=0.5, label="gained")
        down = axes.bar(
            at,
            [-count for count in lost],
            color=PART_COLOURS["wrong"],
            width=0.5,
            label="lost",
            hatch="//",
            edgecolor="white",
        )
        axes.bar_label(up, [f"+{count}" for count in gained], padding=2, fontsize=9.5)
        axes.bar_label(down, [f"−{count}" for count in lost], padding=2, fontsize=9.5)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.margins(y=0.15)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        axes.locator_params(axis="y", integer=True)
        axes.set_ylabel("problems")
        _iteration_axis(axes, labels)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def differences(rows: Mapping[str, Interval], scale: float = 100, unit: str = "percentage points") -> "Figure":
    """Differences with their intervals, and a line at zero."""
    with _style():
        figure, axes = _new(WIDTH, 1.0 + 0.5 * len(rows))
        for at, value in enumerate(rows.values()):
            axes.hlines(at, scale * value.low, scale * value.high, color=LINES[0][0], linewidth=2)
            axes.plot(scale * value.value, at, color=LINES[0][0], marker="o", markersize=8)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [_brief(name) for name in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"difference from the base, {unit}")
    return figure


def as_svg(figure: "Figure", name: str, description: str) -> str:
    """Return the figure as an `<svg>` element for HTML. `name` makes its ids differ from other figures'."""
    from io import StringIO

    text = StringIO()
    with _style():
        figure.savefig(
            text, format="svg", facecolor="none", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # inside HTML it would apply to the whole page
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)


def write_png(figure: "Figure", path: Path, title: Sequence[str]) -> None:
    """Write the figure as a standalone PNG, under the lines of its title."""
    with _style():
        lines = [part for line in title for part in fill(line, 76).splitlines()]
        figure.set_figheight(figure.get_figheight() + 0.16 * len(lines))
        figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5)
        figure.savefig(path, format="png", dpi=180, metadata={"Software": None})


def _style() -> AbstractContextManager[None]:
    from matplotlib import style

    return style.context(["default", STYLE])


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def _new(width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = _figure(width, height)
    return figure, figure.add_subplot()


def _iteration_axis(axes: "Axes", labels: Sequence[str]) -> None:
    step = max(1, ceil(len(labels) / 12))
    axes.set_xticks(range(0, len(labels), step), list(labels)[::step])
    room = 0.4 if len(labels) > 1 else 1
    axes.set_xlim(-room, len(labels) - 1 + room)
    axes.set_xlabel("iteration")


def _even_line(axes: "Axes", value: float) -> None:
    axes.axhline(value, color=MUTED, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)


def _percent_axis(axes: "Axes") -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _any(rows: Mapping[str, Mapping[str, float]], part: str) -> bool:
    return any(row.get(part, 0) > 0 for row in rows.values())


def _brief(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value.is_integer() else f"{value:.1f}"


def _readable_on(colour: str) -> str:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 125 else "white"
