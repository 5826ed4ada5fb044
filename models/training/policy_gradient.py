"""Policy gradients with groups of answers to one problem, as formulas: GRPO, Dr. GRPO, RLOO, DAPO.

For problem x, answers y_1 … y_G with rewards r_i and advantages A_i, and with the ratio
ρ_{i,t} = p_θ(y_{i,t} | x, y_{i,<t}) / p_old(y_{i,t} | x, y_{i,<t}), a token's loss is that of PPO (arXiv 1707.06347,
equation 7), its clip range open upward as in DAPO (arXiv 2503.14476, equation 8):

    L_{i,t} = − min(ρ_{i,t} A_i, clip(ρ_{i,t}, 1 − ε_low, 1 + ε_high) A_i) + β · KL_{i,t}

All probabilities are of the distribution that answers are drawn from: logits are divided by the temperature.
"""

import torch

from models.on_policy import Advantage, Correction, KLEstimator, Normalizer

TINY = 1e-4  # added to a group's standard deviation, as in TRL


def advantages(rewards: torch.Tensor, kind: Advantage) -> torch.Tensor:
    """Advantages of groups of answers, each relative to its own group; 0 for an answer without a reward.

    group: (r − mean) / std (GRPO, arXiv 2402.03300, section 4.1.2). group-no-std: r − mean (Dr. GRPO, arXiv
    2503.20783, section 3.2). leave-one-out: r − mean of the other answers (RLOO, arXiv 2402.14740).

    Args:
        rewards: shape (groups, answers); NaN where nothing could be graded, which counts in no mean.
    """
    graded = ~rewards.isnan()
    count = graded.sum(dim=1, keepdim=True)
    filled = rewards.nan_to_num(nan=0.0)
    mean = filled.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centered = torch.where(graded, rewards - mean, 0.0)
    if kind == "group-no-std":
        return centered
    if kind == "leave-one-out":  # r − (sum − r) / (n − 1) = n / (n − 1) · (r − mean)
        return centered * count / (count - 1).clamp(min=1)
    variance = centered.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
    return centered / (variance.sqrt() + TINY)


def overlong_penalty(tokens: torch.Tensor, most: int, buffer: int) -> torch.Tensor:
    """DAPO's soft penalty on long answers (arXiv 2503.14476, equation 13): from 0 down to −1 over the last tokens.

    Args:
        tokens: lengths of answers.
        most: the longest answer.
        buffer: the last so many tokens are penalized; 0: none.
    """
    if buffer == 0:
        return torch.zeros_like(tokens, dtype=torch.float32)
    return ((most - buffer - tokens) / buffer).clamp(min=-1.0, max=0.0)


def clipped(
    log_probs: torch.Tensor, old: torch.Tensor, advantage: torch.Tensor, low: float, high: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first term of the loss, and where the clip took effect, by token.

    Args:
        log_probs, old: of the answers' tokens now, and when they were drawn, shape (answers, tokens).
        advantage: shape (answers, 1).
    """
    ratio = (log_probs - old).exp()
    bounded = ratio.clamp(1 - low, 1 + high)
    cut = ((ratio < 1 - low) & (advantage < 0)) | ((ratio > 1 + high) & (advantage > 0))
    return -torch.minimum(ratio * advantage, bounded * advantage), cut


def kl_divergence(log_probs: torch.Tensor, reference: torch.Tensor, estimator: KLEstimator) -> torch.Tensor:
    """Estimates of the divergence from a reference policy, by token, at tokens drawn from the policy.

    With r = p_ref / p_θ (Schulman, "Approximating KL divergence", 2020): k2 = (log r)² / 2; k3 = r − 1 − log r,
    unbiased and never negative, GRPO's (arXiv 2402.03300, equation 4). His k1 = −log r has no use in a loss: its
    gradient is 0 on average.
    """
    log_ratio = reference - log_probs
    if estimator == "k2":
        return log_ratio.square() / 2
    return log_ratio.exp() - 1 - log_ratio


def correction(
    trained: torch.Tensor, sampled: torch.Tensor, kind: Correction, cap: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights of tokens that an engine drew with slightly other probabilities, and which of them were limited.

    The weight is p_trainer / p_sampler. truncate: at most `cap` (Yao et al., "Your efficient RL framework secretly
    brings you off-policy RL training", 2025). mask: 0 beyond `cap`, TRL's default.

    Args:
        trained, sampled: log-probabilities in the trainer and in the engine, before any update.
    """
    if kind == "none":
        return torch.ones_like(trained), torch.zeros_like(trained, dtype=torch.bool)
    weight = (trained - sampled).exp()
    beyond = weight > cap
    return (weight.clamp(max=cap) if kind == "truncate" else weight.masked_fill(beyond, 0.0)), beyond


def normalized(per_token: torch.Tensor, mask: torch.Tensor, how: Normalizer, size: float) -> torch.Tensor:
    """The part of an update's loss that comes from these answers.

    sequence: the mean over each answer's tokens, then over answers (GRPO). tokens: the mean over all tokens of the
    update (DAPO, arXiv 2503.14476, section 3.3). constant: the sum over a constant (Dr. GRPO).

    Args:
        per_token, mask: loss, and 1 at an answer's tokens, shape (answers here, tokens).
        size: of the whole update, over all devices: its answers, its tokens, or its answers times the longest answer.
    """
    summed = (per_token * mask).sum(dim=1)
    if how == "sequence":
        summed = summed / mask.sum(dim=1).clamp(min=1)
    return summed.sum() / size
