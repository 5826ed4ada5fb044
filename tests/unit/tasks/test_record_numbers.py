"""The table of iterations and the numbers for MLflow, whatever was measured."""

import pytest

from data.measures import Estimated
from tasks.report.content import IterationReport
from tasks.tracking.numbers import iteration_table
from tests.unit.tasks.test_report import difference, metrics
from tests.unit.tasks.test_report_findings import estimated, interval

ACCURATE = {
    "accuracy": estimated(interval(0.5, 0.4, 0.6), interval(0.1, 0.0, 0.2)),
    "sampled_accuracy": estimated(interval(0.3, 0.2, 0.4)),
}
LOSS = {"loss": estimated(interval(1.5, 1.4, 1.6), interval(-0.5, -0.6, -0.4))}


def reports(measures: dict[str, Estimated], verified: bool) -> list[IterationReport]:
    validation = metrics(0.5, difference(0.1)) if verified else None
    return [IterationReport(iteration=0), IterationReport(iteration=1, validation=validation, measures=measures)]


@pytest.mark.parametrize(
    ("measures", "verified", "decides", "columns", "against"),
    [
        (ACCURATE, True, "accuracy", ["greedy pass@1", "pass@1", "pass@8", "maj@8"], "10.0% [0.0%, 20.0%]"),
        (ACCURATE, True, "sampled_accuracy", ["sampled pass@1", "greedy pass@1", "pass@1", "pass@8", "maj@8"], ""),
        (ACCURATE | LOSS, False, "loss", ["loss per token", "greedy pass@1"], "-0.500 [-0.600, -0.400]"),
        (ACCURATE | LOSS, False, None, ["greedy pass@1", "loss per token"], "10.0% [0.0%, 20.0%]"),
        ({}, False, None, [], ""),
    ],
)
def test_every_measure_has_a_column_and_the_deciding_one_comes_first(
    measures: dict[str, Estimated], verified: bool, decides: str | None, columns: list[str], against: str
) -> None:
    base, trained = iteration_table(reports(measures, verified), decides)
    assert list(base) == list(trained) == ["iteration", "kept", *columns, "against base", "seconds"]
    assert trained["against base"] == against and base["against base"] == ""
    assert all(base[name] is None and trained[name] for name in columns)


def test_values_are_shown_in_the_unit_of_their_measure() -> None:
    (_, row) = iteration_table(reports(ACCURATE | LOSS, False), "loss")
    assert (row["loss per token"], row["greedy pass@1"]) == ("1.500 [1.400, 1.600]", "50.0% [40.0%, 60.0%]")
