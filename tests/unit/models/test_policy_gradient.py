"""Advantages, clipped losses, divergences and corrections: by hand, and against TRL's loss on the same batch."""

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from models.training.policy_gradient import (
    advantages,
    clipped,
    correction,
    kl_divergence,
    normalized,
    overlong_penalty,
)

NAN = math.nan
GROUP = 0.5 / (math.sqrt(1 / 3) + 1e-4)  # the standard deviation of 1, 0, 0, 1, with n − 1


@pytest.mark.parametrize(
    ("kind", "rewards", "expected"),
    [
        ("group", [1, 0, 0, 1], [GROUP, -GROUP, -GROUP, GROUP]),
        ("group-no-std", [1, 0, 0, 1], [0.5, -0.5, -0.5, 0.5]),
        ("leave-one-out", [1, 0, 0, 1], [2 / 3, -2 / 3, -2 / 3, 2 / 3]),
        ("leave-one-out", [3, 1], [2, -2]),
        ("group", [1, 1, 1], [0, 0, 0]),
        ("leave-one-out", [0, 0], [0, 0]),
        ("group-no-std", [1, NAN, 0, 0.5], [0.5, 0, -0.5, 0]),
        ("leave-one-out", [1, NAN, 0], [1, 0, -1]),
        ("group", [1, NAN, NAN], [0, 0, 0]),
        ("leave-one-out", [1, NAN], [0, 0]),
        ("group-no-std", [NAN, NAN], [0, 0]),
    ],
)
def test_advantages(kind: Any, rewards: list[float], expected: list[float]) -> None:
    found = advantages(torch.tensor([rewards, rewards]), kind).tolist()
    assert found[0] == pytest.approx(expected) and found[0] == found[1]


@pytest.mark.parametrize(
    ("tokens", "buffer", "expected"),
    [
        (10, 4, -1.0),
        (9, 4, -0.75),
        (7, 4, -0.25),
        (6, 4, 0.0),
        (1, 4, 0.0),
        (10, 0, 0.0),
        (10, 10, -1.0),
        (5, 10, -0.5),
    ],
)
def test_long_answers_lose_reward_over_the_last_tokens(tokens: int, buffer: int, expected: float) -> None:
    assert overlong_penalty(torch.tensor([tokens]), 10, buffer).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "cut"),
    [
        (1.0, 2.0, -2.0, False),
        (1.2, 1.0, -1.2, False),
        (1.5, 1.0, -1.28, True),
        (0.5, 1.0, -0.5, False),  # a good answer that became less likely is not clipped
        (0.9, -1.0, 0.9, False),
        (0.5, -1.0, 0.8, True),
        (1.5, -1.0, 1.5, False),
    ],
)
def test_the_clipped_loss(ratio: float, advantage: float, loss: float, cut: bool) -> None:
    now, old, worth = torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([[advantage]])
    found, told = clipped(now, old, worth, 0.2, 0.28)
    assert found.item() == pytest.approx(loss) and told.item() is cut


@pytest.mark.parametrize(("estimator", "expected"), [("k2", math.log(2) ** 2 / 2), ("k3", math.log(2) - 0.5)])
def test_divergence_of_a_token_that_is_twice_as_likely_as_in_the_reference(estimator: Any, expected: float) -> None:
    found = kl_divergence(torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)]), estimator)
    assert found.item() == pytest.approx(expected)


def test_k3_has_the_true_mean() -> None:
    policy, reference = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([0.4, 0.4, 0.2])
    true = (policy * (policy / reference).log()).sum().item()
    found = (policy * kl_divergence(policy.log(), reference.log(), "k3")).sum().item()
    assert found == pytest.approx(true, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected", "beyond"),
    [
        ("none", [1, 1, 1], [False, False, False]),
        ("truncate", [0.5, 1.5, 2.0], [False, False, True]),
        ("mask", [0.5, 1.5, 0.0], [False, False, True]),
    ],
)
def test_corrections(kind: Any, expected: list[float], beyond: list[bool]) -> None:
    trained = torch.tensor([[0.5, 1.5, 4.0]]).log()
    weight, limited = correction(trained, torch.zeros(1, 3), kind, 2.0)
    assert weight[0].tolist() == pytest.approx(expected) and limited[0].tolist() == beyond


def trl_loss(kind: str, batch: dict[str, torch.Tensor], now: torch.Tensor, beta: float, corrected: bool) -> float:
    """TRL's own loss of a batch, with its trainer's attributes but no trainer."""
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (now, torch.zeros_like(now), None),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, **_: x),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=0.28,
        use_vllm=corrected,
        vllm_importance_sampling_correction=corrected,
        current_gradient_accumulation_steps=1,
        max_completion_length=6,
        model=SimpleNamespace(training=True),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )
    return float(GRPOTrainer._compute_loss(trainer, None, batch))


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize(("normalizer", "kind"), [("sequence", "grpo"), ("tokens", "dapo"), ("constant", "dr_grpo")])
def test_the_loss_is_that_of_trl(normalizer: Any, kind: str, beta: float, corrected: bool) -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([6, 3, 5, 1])
    mask = (torch.arange(6)[None] < lengths[:, None]).float()
    now, old, reference, sampled = (-torch.rand(4, 6) * 2 for _ in range(4))
    worth = advantages(torch.tensor([[1.0, 0.0], [0.25, 0.5]]), "group").reshape(4)
    weight, _ = correction(old, sampled, "truncate" if corrected else "none", 2.0)
    batch = {
        "prompt_ids": torch.zeros(4, 2, dtype=torch.long),
        "prompt_mask": torch.ones(4, 2),
        "completion_ids": torch.zeros(4, 6, dtype=torch.long),
        "completion_mask": mask,
        "advantages": worth,
        "old_per_token_logps": old,
        "ref_per_token_logps": reference,
        "importance_sampling_ratio": weight,
        "num_items_in_batch": mask.sum(),
    }
    ours, _ = clipped(now, old, worth[:, None], 0.2, 0.28)
    ours = ours * weight + beta * kl_divergence(now, reference, "k3")
    size = {"sequence": 4, "tokens": float(mask.sum()), "constant": 4 * 6}[normalizer]
    found = normalized(ours, mask, normalizer, size).item()
    assert found == pytest.approx(trl_loss(kind, batch, now, beta, corrected), rel=1e-5)
