"""pass@k, majority votes and bootstrap intervals, against values computed by hand and by enumeration."""

import math
import random
from itertools import combinations

import pytest

from data.metrics import (
    Interval,
    Outcome,
    bootstrap_interval,
    majority_correct,
    paired_difference,
    pass_at_k,
)


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"),
    [
        (1, 0, 1, 0.0),
        (1, 1, 1, 1.0),
        (4, 1, 1, 0.25),
        (4, 2, 2, 1 - 1 / 6),
        (5, 2, 3, 1 - 1 / 10),
        (10, 3, 4, 1 - 35 / 210),
        (5, 2, 4, 1.0),
        (64, 0, 64, 0.0),
        (64, 1, 64, 1.0),
    ],
)
def test_pass_at_k_by_hand(n: int, correct: int, k: int, expected: float) -> None:
    assert pass_at_k(n, correct, k) == pytest.approx(expected)


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_all_subsets_of_k_that_hold_a_correct_sample(n: int) -> None:
    for correct in range(n + 1):
        samples = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            subsets = list(combinations(samples, k))
            assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 2, 0), (4, 2, 5), (4, 5, 1), (4, -1, 1), (0, 0, 1), (4, 2, -1)])
def test_pass_at_k_outside_its_bounds_is_refused(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match=rf"pass@{k} needs 1 ≤ k ≤ n .* n={n}, correct={correct}"):
        pass_at_k(n, correct, k)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("5", True)], 1.0),
        ([("6", False)], 0.0),
        ([("5", True), ("5", True), ("6", False)], 1.0),
        ([("5", True), ("6", False), ("6", False)], 0.0),
        ([("5", True), ("6", False)], 0.5),
        ([("5", True), ("6", False), ("7", False)], 1 / 3),
        ([("5", True), ("5", True), ("6", False), ("6", False), ("7", False)], 0.5),
        ([(None, False), (None, False), ("5", True)], 1.0),
        ([(None, False)], 0.0),
        ([], 0.0),
        ([("1/2", True), ("0.5", True)], 1.0),
        ([("5", False), ("5", True)], 1.0),
    ],
)
def test_a_majority_vote_counts_readable_answers_and_shares_ties(
    votes: list[tuple[str | None, bool]], expected: float
) -> None:
    assert majority_correct(votes) == pytest.approx(expected)


def bernoulli(n: int, p: float, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < p) for _ in range(n)]


@pytest.mark.parametrize(("n", "p"), [(400, 0.5), (1000, 0.2)])
def test_a_bootstrap_interval_agrees_with_the_normal_one(n: int, p: float) -> None:
    values = bernoulli(n, p)
    mean = sum(values) / n
    half = 1.96 * math.sqrt(mean * (1 - mean) / n)
    interval = bootstrap_interval(values, seed=0)
    assert interval.value == pytest.approx(mean)
    assert interval.low == pytest.approx(mean - half, abs=0.1 * half)
    assert interval.high == pytest.approx(mean + half, abs=0.1 * half)


@pytest.mark.parametrize("values", [[0.0], [1.0] * 20, [0.25] * 3])
def test_values_that_are_all_equal_have_an_interval_of_no_width(values: list[float]) -> None:
    assert bootstrap_interval(values, 0) == Interval(value=values[0], low=values[0], high=values[0])


def test_the_same_seed_gives_the_same_interval() -> None:
    rng = random.Random(0)
    values = [rng.random() for _ in range(50)]
    assert bootstrap_interval(values, 7) == bootstrap_interval(values, 7) != bootstrap_interval(values, 8)


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        bootstrap_interval([], 0)


def outcomes(correct: dict[str, bool]) -> list[Outcome]:
    return [
        Outcome(
            problem_id=name,
            greedy_correct=right,
            greedy_verdict="correct" if right else "wrong",
            greedy_text="",
            samples=4,
            correct=2,
            majority_correct=0.5,
        )
        for name, right in correct.items()
    ]


def test_a_paired_difference_compares_problem_by_problem_whatever_their_order() -> None:
    ours = outcomes({str(n): n % 4 != 0 for n in range(200)})
    theirs = outcomes({str(n): n % 4 > 1 for n in reversed(range(200))})
    difference = paired_difference(ours, theirs, seed=0)
    assert difference.value == pytest.approx(0.25)
    # Every difference is 0 or 1, so this is the interval of a Bernoulli sample; unpaired it would be twice as wide.
    half = 1.96 * math.sqrt(0.25 * 0.75 / 200)
    assert difference.high - difference.low == pytest.approx(2 * half, rel=0.15)
    assert paired_difference(theirs, ours, seed=0).value == pytest.approx(-0.25)


def test_a_policy_does_not_differ_from_itself() -> None:
    same = outcomes({str(n): n % 2 == 0 for n in range(20)})
    assert paired_difference(same, same, 0) == Interval(value=0, low=0, high=0)


@pytest.mark.parametrize(
    "theirs",
    [
        outcomes({"a": True}),
        outcomes({"a": True, "b": True, "c": True}),
        outcomes({"a": True, "c": True}),
        outcomes({"a": True, "b": True}) + outcomes({"b": False}),
        [],
    ],
)
def test_policies_measured_on_different_problems_are_not_compared(theirs: list[Outcome]) -> None:
    ours = outcomes({"a": True, "b": False})
    for one, other in ((ours, theirs), (theirs, ours)):
        with pytest.raises(ValueError, match="on the same problems"):
            paired_difference(one, other, 0)


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False), (0.0, 0.1, False), (-0.1, 0.0, False), (0, 0, False)],
)
def test_an_interval_knows_whether_it_excludes_zero(low: float, high: float, excludes: bool) -> None:
    assert Interval(value=(low + high) / 2, low=low, high=high).excludes_zero is excludes


def test_an_interval_reads_as_percentages() -> None:
    assert str(Interval(value=0.1234, low=0.1, high=0.15)) == "12.3% [10.0%, 15.0%]"
