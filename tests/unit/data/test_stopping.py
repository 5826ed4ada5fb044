"""When a loop ends, and which iteration was the best."""

import pytest

from data.measures import LOSS, MEASURES, PAIR_ACCURACY, SAMPLED_ACCURACY
from data.metrics import Interval
from data.stopping import StopRule, best_iteration, from_the_base, game_is_over, overoptimized, stop_reason


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


def test_a_loss_is_better_if_it_is_lower() -> None:
    assert best_iteration([2.0, 1.5, 1.7], LOSS) == 1
    assert stop_reason("paper", 1, [2.0, 1.5], LOSS) is None
    assert stop_reason("paper", 1, [1.5, 1.7], LOSS) == "validation did not improve in iteration 1 (1.500 → 1.700)"
    assert stop_reason("patience", 1, [2.0, 1.5, 1.7], LOSS) == "no new best on validation for 1 iteration"


@pytest.mark.parametrize("measure", [m for m in MEASURES.values() if m != LOSS], ids=lambda m: m.name)
def test_every_other_measure_is_better_if_it_is_higher(measure) -> None:
    assert best_iteration([0.5, 0.7, 0.6], measure) == 1 and stop_reason("paper", 1, [0.5, 0.6], measure) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], []), ([None], []), ([None, 0.6], [0.5, 0.6]), ([0.4, None, 0.6], [0.4]), ([None, None], [])],
)
def test_a_base_that_the_others_are_measured_against_is_even(values, expected) -> None:
    assert from_the_base(values, PAIR_ACCURACY) == expected
    assert from_the_base([None, 1.5], LOSS) == []


def test_the_game_is_over_where_nothing_is_left_to_tell_apart() -> None:
    assert "no held-out answer of the opponent is left" in str(game_is_over(2, None))


@pytest.mark.parametrize(("low", "high", "over"), [(0.4, 0.6, True), (0.5, 0.7, True), (0.51, 0.7, False)])
def test_the_game_is_over_once_the_two_cannot_be_told_apart(low: float, high: float, over: bool) -> None:
    assert (game_is_over(2, Interval(value=(low + high) / 2, low=low, high=high)) is not None) == over


@pytest.mark.parametrize(
    ("proxy", "gold", "over"),
    [
        ((0.1, 0.3), (-0.2, -0.1), True),
        ((0.1, 0.3), (-0.2, 0.01), False),
        ((-0.1, 0.3), (-0.2, -0.1), False),
        ((-0.3, -0.1), (-0.2, -0.1), False),
        ((0.1, 0.3), (0.1, 0.2), False),
    ],
)
def test_a_loop_is_over_once_only_what_it_optimizes_rises(
    proxy: tuple[float, float], gold: tuple[float, float], over: bool
) -> None:
    changes = (Interval(value=(low + high) / 2, low=low, high=high) for low, high in (proxy, gold))
    reason = overoptimized(3, 1, *changes, SAMPLED_ACCURACY)
    said = "still rose in iteration 3, by 0.200 since iteration 1, but sampled pass@1 fell by 15.0 points"
    assert (reason is not None and said in reason) if over else reason is None
