"""Soft labels of RLAIF: readings, both orders, direct scores, by hand."""

import math

import pytest

from data.labels import Label, direct_score, place_bias, reading, soft_label


def label(one: float, swapped: float) -> Label:
    return Label("p", 0, 1, one, swapped, "", "", "")


@pytest.mark.parametrize(
    ("log_probs", "expected"),
    [
        ((math.log(0.3), math.log(0.1)), 0.75),
        ((0.0, 0.0), 0.5),
        ((-1000.0, 0.0), 0.0),
        ((0.0, -1000.0), 1.0),
        ((math.log(0.12345), math.log(0.87655)), 0.1235),  # rounded
    ],
)
def test_a_reading_is_a_softmax_of_the_two_choices(log_probs: tuple[float, float], expected: float) -> None:
    assert reading(log_probs) == pytest.approx(expected, abs=1e-9)


def test_a_reading_can_be_clamped_as_in_constitutional_ai() -> None:
    found = [reading((math.log(p), math.log(1 - p)), (0.4, 0.6)) for p in (0.9, 0.55, 0.1)]
    assert found == [0.6, 0.55, 0.4]


@pytest.mark.parametrize("one", [0.0, 0.1235, 0.3333, 0.5, 1.0])
@pytest.mark.parametrize("swapped", [0.0, 0.0001, 0.7, 0.9999])
def test_swapping_the_answers_mirrors_the_label(one: float, swapped: float) -> None:
    # Of the pair (b, a), b is shown first when a was second: what was 1 − swapped becomes its first reading.
    mirrored = soft_label(round(1 - swapped, 4), round(1 - one, 4))
    assert mirrored == pytest.approx(1 - soft_label(one, swapped), abs=1e-12)
    assert label(one, swapped).probability == pytest.approx((one + swapped) / 2)


@pytest.mark.parametrize(("one", "swapped", "by_place"), [(0.9, 0.8, False), (0.9, 0.2, True), (0.1, 0.9, True)])
def test_a_place_that_wins_twice_is_a_bias(one: float, swapped: float, by_place: bool) -> None:
    assert label(one, swapped).goes_by_place is by_place


def test_the_share_of_pairs_decided_by_place() -> None:
    assert place_bias([label(0.9, 0.1), label(0.9, 0.9), label(0.6, 0.5)]) == pytest.approx(1 / 3)
    assert place_bias([]) is None


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([1, 0, 0, 0, 0, 0, 0, 0, 0, 0], -1.0),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 1.0),
        ([1] * 10, 0.0),
        ([0, 0, 0, 0, 1, 0, 0, 0, 0, 3], 2 * (8.75 - 1) / 9 - 1),
    ],
)
def test_a_direct_score_is_the_mean_of_the_ten_values(probabilities: list[float], expected: float) -> None:
    log_probs = [math.log(p) - 5 if p else -1000.0 for p in probabilities]  # they need not sum to one
    assert direct_score(log_probs) == pytest.approx(expected)
