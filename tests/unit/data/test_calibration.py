"""Figures of a reward model on held-out pairs, against values computed by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from data.calibration import reliability, reward_metrics
from data.prepare.preferences import is_held_out
from data.rows import PairReward, problem_id

SURE = math.log(9)  # σ(log 9) = 0.9


def rows(*margins: float, lengths: tuple[int, int] = (3, 2)) -> list[PairReward]:
    return [PairReward(f"{n}", 0, margin / 2, -margin / 2, *lengths) for n, margin in enumerate(margins)]


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated():
    metrics = reward_metrics(rows(*[SURE] * 9, -SURE), seed=0)
    assert (metrics.pairs, metrics.accuracy.value) == (10, 0.9)
    assert metrics.accuracy.low < 0.9 < metrics.accuracy.high
    assert metrics.calibration_error == pytest.approx(0, abs=1e-12)
    assert metrics.brier == pytest.approx(0.9 * 0.1**2 + 0.1 * 0.9**2)
    assert metrics.loss == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    assert metrics.margin == pytest.approx(0.8 * SURE)


def test_a_model_that_is_right_half_as_often_as_it_says_is_over_confident():
    metrics = reward_metrics(rows(SURE, -SURE), seed=0)
    assert metrics.accuracy.value == 0.5
    assert metrics.calibration_error == pytest.approx(0.4)
    (only,) = metrics.reliability
    assert (only.pairs, only.accuracy) == (2, 0.5)
    assert only.confidence == pytest.approx(0.9)
    assert only.low <= 0.9 <= only.high


def test_a_model_that_is_always_right_and_certain_has_no_error():
    metrics = reward_metrics(rows(80.0, 90.0), seed=0)
    assert (metrics.accuracy.value, metrics.accuracy.low) == (1, 1)
    assert [metrics.calibration_error, metrics.brier, metrics.loss] == pytest.approx([0, 0, 0], abs=1e-12)


def test_a_model_that_knows_nothing():
    metrics = reward_metrics(rows(0.0, 0.0), seed=0)
    assert (metrics.accuracy.value, metrics.margin, metrics.calibration_error, metrics.brier) == (0.5, 0, 0, 0.25)
    assert metrics.loss == pytest.approx(math.log(2))
    assert metrics.length_correlation is None


def test_the_error_weighs_bins_by_their_pairs():
    # Three pairs at 0.9, two of them right; one at 0.6, wrong: (3·|2/3 − 0.9| + 1·|0 − 0.6|) / 4.
    metrics = reward_metrics(rows(SURE, SURE, -SURE, -math.log(1.5)), seed=0)
    assert metrics.calibration_error == pytest.approx((3 * (0.9 - 2 / 3) + 0.6) / 4)
    assert [b.pairs for b in metrics.reliability] == [1, 3]


def test_with_its_sides_swapped_a_set_gives_the_mirrored_figures():
    given = rows(SURE, 1.0, -0.5, 0.0, 2.0, lengths=(7, 4))
    swapped = [
        PairReward(r.problem_id, r.index, r.rejected, r.chosen, r.rejected_tokens, r.chosen_tokens) for r in given
    ]
    one, other = reward_metrics(given, seed=0), reward_metrics(swapped, seed=0)
    assert other.accuracy.value == pytest.approx(1 - one.accuracy.value)
    assert other.margin == -one.margin
    assert other.chosen_longer == 1 - one.chosen_longer
    assert other.preferred_longer == one.preferred_longer
    assert other.length_correlation == pytest.approx(one.length_correlation)
    for ours, theirs in zip(one.reliability, other.reliability, strict=True):
        assert (theirs.pairs, theirs.confidence) == (ours.pairs, ours.confidence)
        assert theirs.accuracy == pytest.approx(1 - ours.accuracy)


def test_a_taste_for_length_shows_beside_that_of_the_data():
    # The longer side is always rewarded more, and is the chosen one in one pair of two.
    given = [PairReward("a", 0, 1.0, -1.0, 9, 3), PairReward("b", 0, -1.0, 1.0, 3, 9)]
    metrics = reward_metrics(given, seed=0)
    assert (metrics.chosen_longer, metrics.preferred_longer) == (0.5, 1.0)
    assert metrics.length_correlation == pytest.approx(1.0)
    equal = reward_metrics([replace(row, chosen_tokens=5, rejected_tokens=5) for row in given], seed=0)
    assert (equal.chosen_longer, equal.preferred_longer, equal.length_correlation) == (0.5, 0.5, None)


def test_every_confidence_has_a_bin_also_at_the_edges():
    table = reliability(np.array([0.0, 1000.0, -1000.0, 0.4]), bins=2)
    assert [(b.low, b.high, b.pairs) for b in table] == [(0.5, 0.75, 2), (0.75, 1.0, 2)]


def test_no_pairs_are_no_figures():
    with pytest.raises(ValueError, match="no pairs"):
        reward_metrics([], seed=0)


def test_prompts_are_held_out_by_their_hash_alone():
    ids = [problem_id([{"role": "user", "content": f"Question {n}?"}]) for n in range(2000)]
    held_out = {i for i in ids if is_held_out(i, 0.1)}
    assert 0.07 < len(held_out) / len(ids) < 0.13
    assert held_out <= {i for i in ids if is_held_out(i, 0.2)}
    assert not any(is_held_out(i, 0.0) for i in ids) and all(is_held_out(i, 1.0) for i in ids)
