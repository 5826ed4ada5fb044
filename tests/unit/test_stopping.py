"""When a loop ends, and which iteration was the best."""

import pytest

from data.stopping import StopRule, best_iteration, stop_reason


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [([0.5], 0), ([0.5, 0.6, 0.7], 2), ([0.5, 0.7, 0.6], 1), ([0.5, 0.4], 0), ([0.5, 0.7, 0.7], 1), ([0.5, 0.5], 0)],
)
def test_the_best_iteration_is_the_earliest_of_the_highest_accuracy(accuracies: list[float], best: int) -> None:
    assert best_iteration(accuracies) == best


@pytest.mark.parametrize(
    ("rule", "patience", "accuracies", "reason"),
    [
        ("paper", 1, [0.5], None),
        ("paper", 1, [0.5, 0.6], None),
        ("paper", 1, [0.5, 0.6, 0.601], None),
        ("paper", 1, [0.5, 0.6, 0.6], "validation did not improve in iteration 2 (60.0% → 60.0%)"),
        ("paper", 1, [0.5, 0.45], "validation did not improve in iteration 1 (50.0% → 45.0%)"),
        ("paper", 1, [0.5, 0.3, 0.4], None),
        ("paper", 9, [0.5, 0.4], "validation did not improve in iteration 1 (50.0% → 40.0%)"),
        ("patience", 1, [0.5], None),
        ("patience", 1, [0.5, 0.6], None),
        ("patience", 1, [0.5, 0.5], "no new best on validation for 1 iteration"),
        ("patience", 2, [0.5, 0.4], None),
        ("patience", 2, [0.5, 0.4, 0.45], "no new best on validation for 2 iterations"),
        ("patience", 2, [0.5, 0.4, 0.6], None),
        ("patience", 2, [0.5, 0.6, 0.5, 0.6], "no new best on validation for 2 iterations"),
        ("patience", 3, [0.5, 0.6, 0.5, 0.6], None),
        ("none", 1, [0.5, 0.4, 0.3, 0.2], None),
    ],
)
def test_a_loop_ends_by_its_rule_and_says_why(
    rule: StopRule, patience: int, accuracies: list[float], reason: str | None
) -> None:
    assert stop_reason(rule, patience, accuracies) == reason
