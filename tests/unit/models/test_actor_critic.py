"""PPO's formulas: by hand, and against the numbers of the last trainer that TRL had (1.12) on one batch."""

import pytest
import torch

from models.training.actor_critic import (
    explained_variance,
    generalized_advantages,
    next_kl_weight,
    scores_of_ends,
    token_rewards,
    value_loss,
    whitened,
)


def alone(numbers: torch.Tensor) -> torch.Tensor:
    """The sum over one process."""
    return numbers


@pytest.mark.parametrize(("penalty", "expected"), [(None, [0.5, 2.0]), (-1.0, [0.5, -1.0])])
def test_an_answer_without_an_end_gets_a_fixed_score(penalty: float | None, expected: list[float]) -> None:
    assert scores_of_ends(torch.tensor([0.5, 2.0]), torch.tensor([True, False]), penalty).tolist() == expected


def test_the_score_is_at_the_last_token_and_the_divergence_at_each() -> None:
    mask = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]])
    ours = torch.tensor([[-1.0, -2.0, -3.0], [-9.0, -1.0, -9.0], [-9.0, -9.0, -9.0]])
    theirs = torch.tensor([[-1.5, -1.0, -3.0], [0.0, -3.0, 0.0], [0.0, 0.0, 0.0]])
    found = token_rewards(torch.tensor([1.0, 2.0, 5.0]), ours, theirs, mask, 0.1)
    assert found.tolist() == [pytest.approx([-0.05, 0.1, 1.0]), pytest.approx([0, 1.8, 0]), [0, 0, 0]]


@pytest.mark.parametrize(
    ("discount", "decay", "expected"),
    [
        (1.0, 0.0, [0.2, 0.3, 0.4]),  # each surprise alone: the value rises by 0.2 and 0.3, and 1 comes instead of 0.6
        (1.0, 1.0, [0.9, 0.7, 0.4]),  # the return less the value
        (0.5, 1.0, [0.05 + 0.5 * 0.2, 0.0 + 0.5 * 0.4, 0.4]),  # surprises 0.15 − 0.1, 0.3 − 0.3, 1 − 0.6
        (1.0, 0.5, [0.2 + 0.15 + 0.1, 0.3 + 0.2, 0.4]),
    ],
)
def test_generalized_advantages(discount: float, decay: float, expected: list[float]) -> None:
    values, rewards = torch.tensor([[0.1, 0.3, 0.6]]), torch.tensor([[0.0, 0.0, 1.0]])
    found, returns = generalized_advantages(rewards, values, torch.ones(1, 3), discount, decay)
    assert found[0].tolist() == pytest.approx(expected)
    assert returns[0].tolist() == pytest.approx([a + v for a, v in zip(expected, values[0].tolist(), strict=True)])


def test_padding_on_either_side_changes_no_advantage_and_has_none() -> None:
    values, rewards = torch.tensor([[7.0, 0.1, 0.3, 9.0]]), torch.tensor([[5.0, 0.0, 1.0, 3.0]])
    found, returns = generalized_advantages(rewards, values, torch.tensor([[0, 1, 1, 0]]), 1.0, 0.95)
    plain, plain_returns = generalized_advantages(rewards[:, 1:3], values[:, 1:3], torch.ones(1, 2), 1.0, 0.95)
    assert found.tolist() == [[0.0, *plain[0].tolist(), 0.0]]
    assert returns.tolist() == [[0.0, *plain_returns[0].tolist(), 0.0]]


def test_whitening_is_over_all_processes_and_without_padding() -> None:
    here, mask = torch.tensor([[1.0, 2.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    there = torch.tensor([3.0, 6.0])
    whole = torch.tensor([1.0, 2.0, 3.0, 6.0])
    mean, deviation = whole.mean(), whole.std()

    def both(numbers: torch.Tensor) -> torch.Tensor:
        other = [2.0, there.sum().item()] if len(numbers) == 2 else [((there - mean) ** 2).sum().item()]
        return numbers + torch.tensor(other, dtype=torch.float64)

    expected = ((whole[:2] - mean) / deviation).tolist()
    assert whitened(here, mask, both)[0].tolist() == pytest.approx([*expected, 0.0], abs=1e-6)
    kept = whitened(here, mask, both, keep_mean=True)[0].tolist()
    assert kept == pytest.approx([*(e + mean.item() for e in expected), 0.0], abs=1e-6)
    assert whitened(torch.ones(1, 3), mask, alone).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("value", "old", "target", "expected", "counts"),
    [
        (1.0, 1.1, 2.0, 0.5, False),  # within the clip
        (2.0, 1.0, 2.0, 0.5 * 0.8**2, True),  # right, but too far from the old value: no gain from that
        (0.0, 1.0, 2.0, 2.0, False),  # wrong, and further than the clip
    ],
)
def test_a_value_gains_nothing_from_going_far(
    value: float, old: float, target: float, expected: float, counts: bool
) -> None:
    loss, clipped = value_loss(torch.tensor([value]), torch.tensor([old]), torch.tensor([target]), 0.2)
    assert loss.item() == pytest.approx(expected) and clipped.item() == counts


@pytest.mark.parametrize(
    ("values", "expected"), [([1.0, 2.0, 3.0, 0.0], 1.0), ([2.0, 2.0, 2.0, 0.0], 0.0), ([3.0, 2.0, 1.0, 0.0], -3.0)]
)
def test_explained_variance(values: list[float], expected: float) -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 50.0]]), torch.tensor([[1, 1, 1, 0]])
    assert explained_variance(torch.tensor([values]), returns, mask, alone) == pytest.approx(expected)
    assert explained_variance(torch.tensor([values]), torch.ones(1, 4), mask, alone) == 0.0


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [(6.0, 0.2), (6.6, 0.2 * 1.01), (60.0, 0.2 * 1.02), (5.4, 0.2 * 0.99), (0.0, 0.2 * 0.98)],
)
def test_the_weight_of_the_divergence_follows_its_target(divergence: float, expected: float) -> None:
    assert next_kl_weight(0.2, divergence, 6.0, 100, 1000) == pytest.approx(expected)


# TRL's batch: log-probabilities, those of the reference, values before and during an update, scores, last tokens.
OURS = [
    [-0.83025, -0.12611, -0.90747, -0.81993, -0.9201, -0.11665],
    [-0.16439, -0.73792, -0.03326, -0.99418, -0.60643, -0.56457],
    [-0.07241, -0.65934, -0.71501, -0.57933, -0.98093, -0.65016],
]
THEIRS = [
    [-0.05663, -0.92011, -0.66976, -0.26147, -0.04072, -0.78504],
    [-0.97516, -0.09034, -0.52733, -0.67939, -0.26388, -0.3906],
    [-0.16614, -0.26362, -0.04417, -0.48841, -0.79646, -0.74319],
]
VALUES = [
    [1.92306, 0.28795, -1.13724, -0.82083, 0.98952, 0.51972],
    [-0.68611, -0.37137, 0.48846, 0.31185, 1.27019, 1.32272],
    [1.55846, -0.35767, -0.25059, -2.6642, -0.51449, 0.62168],
]
NEW_VALUES = [
    [1.65968, 0.06517, -1.29251, -1.05344, 1.14135, 0.66424],
    [-0.80807, -0.02333, 0.58751, 0.52832, 1.62584, 1.43052],
    [1.43739, -0.62912, -0.05475, -2.57113, -0.39108, 0.81596],
]
SCORES, LAST = [1.5, -0.5, 0.25], [5, 3, 0]
REWARDS = [
    [0.03868, -0.0397, 0.01189, 0.02792, 0.04397, 1.46658],
    [-0.04054, 0.03238, -0.0247, -0.48426, 0.0, 0.0],
    [0.24531, 0.0, 0.0, 0.0, 0.0, 0.0],
]
ADVANTAGES = [
    [-0.72988, 0.91216, 2.50216, 2.28828, 0.47369, 0.94686],
    [0.25755, -0.01753, -0.95762, -0.79611, 0.0, 0.0],
    [-1.31315, 0.0, 0.0, 0.0, 0.0, 0.0],
]
WHITE = [
    [-0.82899, 0.46238, 1.71283, 1.54463, 0.11755, 0.48967],
    [-0.05243, -0.26877, -1.0081, -0.88108, 0.0, 0.0],
    [-1.2877, 0.0, 0.0, 0.0, 0.0, 0.0],
]
LOSS = 0.88971


def test_a_batch_comes_to_the_numbers_of_trl() -> None:
    ours, theirs, values, new = (torch.tensor(rows) for rows in (OURS, THEIRS, VALUES, NEW_VALUES))
    mask = (torch.arange(6)[None] <= torch.tensor(LAST)[:, None]).float()
    rewards = token_rewards(torch.tensor(SCORES), ours, theirs, mask, 0.05)
    torch.testing.assert_close(rewards, torch.tensor(REWARDS), atol=2e-5, rtol=0)
    advantages, returns = generalized_advantages(rewards, values, mask, 1.0, 0.95)
    torch.testing.assert_close(advantages, torch.tensor(ADVANTAGES), atol=5e-5, rtol=0)
    torch.testing.assert_close(whitened(advantages, mask, alone), torch.tensor(WHITE), atol=5e-5, rtol=0)
    losses, clipped = value_loss(new, values * mask, returns, 0.2)
    assert ((losses * mask).sum() / mask.sum()).item() == pytest.approx(LOSS, abs=5e-5)
    assert int((clipped * mask).sum()) == 1
