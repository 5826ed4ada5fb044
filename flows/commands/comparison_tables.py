"""The output of `autodidact compare`: two runs side by side, as tables and notes."""

from collections.abc import Sequence

from rich.table import Table

from data.metrics import Interval
from data.wording import counted
from flows.commands.printing import make_console
from tasks.history.compare import (
    GREEDY,
    SETS,
    Compared,
    Comparison,
    Figure,
    evaluation_differences,
    setting_differences,
)
from tasks.history.compare_measures import RowsCompared
from tasks.history.runs import History
from tasks.report.wording import LEVEL


def show_comparison(first: History, second: History, found: Compared, wanted: str | None) -> None:
    """Print the settings that differ, a table for each set, and what could not be compared.

    Args:
        wanted: the requested set; None: all.
    """
    console = make_console()
    names = first.name, second.name
    settings = setting_differences(first.config, second.config)
    table = Table(title="Settings that differ" if settings else "No setting differs", title_justify="left")
    for name in ("setting", *names):
        table.add_column(name, overflow="fold")
    for row in settings:
        table.add_row(*row)
    console.print(table if settings else "The settings of the two runs are the same.")
    for set_name in found.sets:
        if comparisons := [c for c in found.verified if c.set_name == set_name]:
            console.print(_comparison_table(comparisons, names))
            console.print(_about(set_name, comparisons), soft_wrap=True)
        if measured := [c for c in found.measures if c.set_name == set_name]:
            console.print(_measure_table(measured, names))
            console.print(_about_rows(measured), soft_wrap=True)
    missing = [name for name in ((wanted,) if wanted else SETS) if name not in found.sets]
    for name in missing:
        console.print(f"Not compared on {name}: only runs with a finished evaluation on it can be compared.")
    for sentence in found.refused:
        console.print(sentence, soft_wrap=True)
    for note in evaluation_differences(found.verified):
        console.print(f"Note: {note}.", soft_wrap=True)


def _comparison_table(comparisons: Sequence[Comparison], names: tuple[str, str]) -> Table:
    first, second = names
    by_iteration = comparisons[0].set_name == "validation"
    title = comparisons[0].set_name.capitalize()
    table = Table(title=title if by_iteration else f"{title}, {comparisons[0].label}", title_justify="left")
    table.add_column("measure")
    for name in (first, second, f"{second} − {first}"):
        table.add_column(name, justify="right")
    table.add_column("excludes\nzero", justify="right")
    table.add_column("gained,\nlost", justify="right")
    for comparison in comparisons:
        if by_iteration:
            table.add_row(comparison.label)
        for figure in comparison.figures:
            table.add_row(*_figure_row(comparison, figure))
        table.add_section()
    return table


def _figure_row(comparison: Comparison, figure: Figure) -> tuple[str, ...]:
    difference = figure.difference
    return (
        figure.name,
        *(_interval(interval) for interval in (figure.first, figure.second, difference)),
        "" if difference is None else "yes" if difference.excludes_zero else "no",
        f"{comparison.gained}, {comparison.lost}" if figure.name == GREEDY else "",
    )


def _measure_table(compared: Sequence[RowsCompared], names: tuple[str, str]) -> Table:
    """Further measures of a set: for the best iteration of each run, or on validation by iteration."""
    first, second = names
    by_iteration = compared[0].set_name == "validation"
    label = "" if by_iteration else f", {compared[0].label}"
    table = Table(title=f"{compared[0].set_name.capitalize()}{label}: further measures", title_justify="left")
    table.add_column("measure")
    for name in (first, second, f"{second} − {first}", "excludes\nzero", "n"):
        table.add_column(name, justify="right")
    for found in compared:
        name = f"{found.label}: {found.measure.label}" if by_iteration else found.measure.label
        values = (found.measure.shown_interval(i) for i in (found.first, found.second, found.difference))
        table.add_row(name, *values, "yes" if found.difference.excludes_zero else "no", f"{found.rows:,}")
    return table


def _about_rows(compared: Sequence[RowsCompared]) -> str:
    """What the values of further measures are based on."""
    rows = dict.fromkeys(f"{c.measure.label} of {c.measure.rows}" for c in compared)
    lower = [c.measure.label for c in compared if not c.measure.higher_is_better]
    left_out = max(c.left_out for c in compared)
    rows_apart = counted(left_out, "row")
    return (
        f"{compared[0].set_name}: {', '.join(rows)}; {LEVEL} bootstrap intervals over rows, paired in the difference"
        f"{f'; of {lower[0]}, lower is better' if lower else ''}"
        f"{f'; {rows_apart} in only one run left out' * bool(left_out)}.\n"
    )


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else str(interval)


def _about(set_name: str, comparisons: Sequence[Comparison]) -> str:
    """What the values of a set are based on."""
    one, two = comparisons[0].first.metrics, comparisons[0].second.metrics

    def both(name: str) -> str:
        values = dict.fromkeys(f"{getattr(metrics, name):g}" for metrics in (one, two))
        return " | ".join(values)

    left_out = comparisons[0].left_out
    return (
        f"{set_name}: n = {comparisons[0].problems:,} problems"
        f"{f' in both runs ({left_out:,} in only one left out)' * bool(left_out)}; greedy answers at temperature 0; "
        f"pass@k and maj@k from {both('samples_per_problem')} samples at temperature {both('temperature')}, top-p "
        f"{both('top_p')}; {LEVEL} bootstrap intervals over problems, paired in the difference. Gained: problems that "
        f"only the second run solves greedily; lost: only the first.\n"
    )
