"""Reward-model metrics on held-out pairs: accuracy, calibration and length bias.

Bradley–Terry reads a margin Δ = r_chosen − r_rejected as the probability σ(Δ) that the chosen answer is better.
Which side is called "chosen" must not matter to calibration, so the prediction is the side with the higher reward, with
confidence σ(|Δ|) ≥ 0.5.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data.measures import estimate
from data.metrics import Interval
from data.rows import MeasuredRow, PairReward

BINS = 10


class ReliabilityBin(BaseModel):
    """Pairs of similar confidence: what the model claims and how often it is right."""

    model_config = ConfigDict(frozen=True)
    low: float
    high: float
    pairs: int
    confidence: float = Field(description="Mean of σ(|Δ|).")
    accuracy: float = Field(description="Share of these pairs whose chosen side has the higher reward.")


class RewardMetrics(BaseModel):
    """A reward model on held-out pairs. Shares are fractions of 1; lengths are in answer tokens."""

    model_config = ConfigDict(frozen=True)
    pairs: int
    accuracy: Interval = Field(description="Share of pairs whose chosen side has the higher reward; a tie counts 0.5.")
    margin: float = Field(description="Mean of Δ = r_chosen − r_rejected.")
    loss: float = Field(description="Mean of −log σ(Δ), in nats; log 2 at chance.")
    brier: float = Field(description="Mean of (1 − σ(Δ))²; 0.25 at chance.")
    calibration_error: float = Field(description="Expected calibration error: mean |accuracy − confidence| over bins.")
    reliability: list[ReliabilityBin] = Field(description="Non-empty bins of equal width.")
    mean_reward: float
    length_correlation: float | None = Field(description="Pearson's r of reward and length; None if one is constant.")
    chosen_longer: float = Field(description="Share of pairs whose chosen side is longer; a tie counts 0.5.")
    preferred_longer: float = Field(description="Share of pairs whose higher-rewarded side is longer.")


def reward_metrics(rows: Iterable[PairReward], seed: int) -> RewardMetrics:
    """Compute metrics from the rewards of pairs.

    Args:
        seed: of the bootstrap over prompts.

    Raises:
        ValueError: no pairs.
    """
    found = list(rows)
    if not found:
        raise ValueError("There are no pairs to measure.")
    rewards = np.array([(row.chosen, row.rejected) for row in found])
    lengths = np.array([(row.chosen_tokens, row.rejected_tokens) for row in found])
    margins, longer = rewards[:, 0] - rewards[:, 1], np.sign(lengths[:, 0] - lengths[:, 1])
    right = (1 + np.sign(margins)) / 2
    bins = reliability(margins)
    measured = [MeasuredRow(row.problem_id, row.index, value) for row, value in zip(found, right.tolist(), strict=True)]
    return RewardMetrics(
        pairs=len(found),
        accuracy=estimate(measured, seed),
        margin=float(margins.mean()),
        loss=float(np.logaddexp(0, -margins).mean()),
        brier=float(((1 - _sigmoid(margins)) ** 2).mean()),
        calibration_error=sum(b.pairs * abs(b.accuracy - b.confidence) for b in bins) / len(found),
        reliability=bins,
        mean_reward=float(rewards.mean()),
        length_correlation=_correlation(rewards.ravel(), lengths.ravel()),
        chosen_longer=float(((1 + longer) / 2).mean()),
        preferred_longer=float(((1 + longer * np.sign(margins)) / 2).mean()),
    )


def reliability(margins: Sequence[float] | np.ndarray, bins: int = BINS) -> list[ReliabilityBin]:
    """Reliability table of margins Δ: confidences from 0.5 to 1 in bins of equal width, empty bins left out.

    Guo et al. 2017 (arXiv 1706.04599), section 2, for the two classes "this side is the better one" and "the other".
    """
    values = np.asarray(margins, dtype=float)
    confidence, right = _sigmoid(np.abs(values)), (1 + np.sign(values)) / 2
    edges = np.linspace(0.5, 1.0, bins + 1)
    places = np.clip(np.digitize(confidence, edges) - 1, 0, bins - 1)
    return [
        ReliabilityBin(
            low=float(low),
            high=float(high),
            pairs=int(mine.sum()),
            confidence=float(confidence[mine].mean()),
            accuracy=float(right[mine].mean()),
        )
        for number, (low, high) in enumerate(pairwise(edges))
        if (mine := places == number).any()
    ]


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -values)))


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
