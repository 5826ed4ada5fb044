"""PPO for language models, as formulas: rewards by token, generalized advantages, the loss of the value model.

An answer is an episode, and each of its tokens an action. The policy's own loss, with its clip, is that of
policy_gradient.py. Defaults in `models.on_policy` are those of a well-documented re-implementation of RLHF ("The N+
implementation details of RLHF with PPO", arXiv 2403.17031).
"""

from collections.abc import Callable

import torch

TINY = 1e-8  # added to the variance of what is whitened, as in TRL
MOST_ERROR = 0.2  # of the divergence from its target, in one step
Sum = Callable[[torch.Tensor], torch.Tensor]  # over all processes


def scores_of_ends(scores: torch.Tensor, ended: torch.Tensor, penalty: float | None) -> torch.Tensor:
    """Scores in which a fixed one replaces that of an answer which did not end on its own (arXiv 1909.08593, 2.3).

    Args:
        scores, ended: shape (answers,).
        penalty: the fixed score; None: scores stay as they are.
    """
    return scores if penalty is None else torch.where(ended, scores, penalty)


def token_rewards(
    scores: torch.Tensor, log_probs: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor, weight: float
) -> torch.Tensor:
    """The reward of each token: less what it adds to the divergence, and at the last one the score.

    R(x, y) = r(x, y) − β log(π(y|x) / π_ref(y|x)) (arXiv 1909.08593, equation 2; arXiv 2203.02155, equation 2), spread
    over tokens: Schulman's estimator k1.

    Args:
        scores: shape (answers,).
        log_probs, reference: of the answers' tokens when they were drawn, shape (answers, tokens).
        mask: 1 at an answer's tokens, which follow each other, shape (answers, tokens).
        weight: β.
    """
    rewards = -weight * (log_probs - reference) * mask
    last = mask.long().cumsum(dim=1).argmax(dim=1)
    return rewards.scatter_add(1, last[:, None], (scores * mask.any(dim=1))[:, None])


def generalized_advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, discount: float, decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages (GAE, arXiv 1506.02438, equation 16) and the returns that values are to predict.

    δ_t = r_t + γ V_{t+1} − V_t, and A_t = δ_t + γλ A_{t+1}; after the last token, value and advantage are 0. The return
    is A_t + V_t.

    Args:
        rewards, values, mask: shape (answers, tokens); a value is that of what precedes the token.
        discount, decay: γ and λ.
    """
    rewards, values = rewards * mask, values * mask
    following, later = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    found = []
    for now in reversed(range(rewards.shape[1])):
        surprise = rewards[:, now] + discount * following - values[:, now]
        # Between answer and padding on its right both are 0; before an answer, nothing is carried on.
        later = torch.where(mask[:, now] > 0, surprise + discount * decay * later, 0.0)
        following = values[:, now]
        found.append(later)
    advantages = torch.stack(found[::-1], dim=1)
    return advantages, (advantages + values) * mask


def whitened(numbers: torch.Tensor, mask: torch.Tensor, total: Sum, keep_mean: bool = False) -> torch.Tensor:
    """Numbers with variance 1, and mean 0 unless it is kept, over the tokens of all processes; 0 elsewhere."""
    count, summed = total(torch.stack([mask.sum(), (numbers * mask).sum()]).double())
    mean = summed / count.clamp(min=1)
    (squares,) = total((((numbers - mean) * mask) ** 2).sum()[None].double())
    scale = torch.rsqrt(squares / (count - 1).clamp(min=1) + TINY)
    return (((numbers - mean) * scale + (mean if keep_mean else 0.0)) * mask).to(numbers.dtype)


def value_loss(
    values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half the squared error of each value, at least that of the value clipped to the old one, and where that counts.

    ½ max((V − R)², (clip(V, V_old − ε, V_old + ε) − R)²) (arXiv 2403.17031, detail 18).
    """
    near = values.clamp(old - clip, old + clip)
    error, error_near = (values - returns) ** 2, (near - returns) ** 2
    return 0.5 * torch.maximum(error, error_near), error_near > error


def explained_variance(values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, total: Sum) -> float:
    """1 − Var(R − V) / Var(R) over the tokens of all processes: 1 for perfect values, 0 for constant ones."""
    told = [mask.sum()]
    for numbers in (returns - values, returns):
        told += [(numbers * mask).sum(), ((numbers * mask) ** 2).sum()]
    count, of_error, of_error_squared, of_return, of_return_squared = total(torch.stack(told).double()).tolist()
    count = max(count, 1.0)
    unexplained = of_error_squared / count - (of_error / count) ** 2
    whole = of_return_squared / count - (of_return / count) ** 2
    return 1 - unexplained / whole if whole > 0 else 0.0


def next_kl_weight(weight: float, divergence: float, target: float, answers: int, horizon: int) -> float:
    """The weight of the divergence for the next step, so that it comes to its target (arXiv 1909.08593, section 2.2).

    e = clip((KL − target) / target, −0.2, 0.2), and β ← β (1 + e · answers / horizon).

    Args:
        divergence, target: of whole answers, in nats.
        answers: in this step, over all devices.
        horizon: answers after which an error of 0.2 has multiplied the weight by about 1.2.
    """
    error = min(MOST_ERROR, max(-MOST_ERROR, divergence / target - 1))
    return weight * (1 + error * answers / horizon)
