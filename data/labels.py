"""Preferences that a model labels, read from its probabilities of fixed replies (RLAIF, arXiv 2309.00267).

A pair is shown in both orders, because judges have a position bias, and the two readings are averaged (section 3.1.1).
Log-probabilities are rounded before use, so that labels depend less on which other requests shared a batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

DECIMALS = 4  # of log-probabilities
EVEN = 0.5
VALUES = tuple(range(1, 11))  # of a direct score


@dataclass(frozen=True, slots=True)
class Label:
    """A model's preference between two answers to one problem.

    `straight` is the probability of "the first is better" with answer `index` shown first, and `swapped` the same with
    answer `other` shown first. `value` is the probability that `index` is better; it is None if a reading failed, and
    `failure` says why. `reasoning` and `swapped_reasoning` are what the model wrote before its choice. `principle` is
    what it was asked to go by, if one was drawn.
    """

    problem_id: str
    index: int
    other: int
    straight: float | None
    swapped: float | None
    value: float | None
    reasoning: str
    swapped_reasoning: str
    principle: str
    failure: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("index", pa.int32()),
            ("other", pa.int32()),
            ("straight", pa.float64()),
            ("swapped", pa.float64()),
            ("value", pa.float64()),
            ("reasoning", pa.string()),
            ("swapped_reasoning", pa.string()),
            ("principle", pa.string()),
            ("failure", pa.string()),
        ]
    )


def probabilities(log_probs: Sequence[float]) -> list[float]:
    """The probabilities of some replies among themselves, from their log-probabilities.

    >>> probabilities([-1.00001, -1.0])
    [0.5, 0.5]

    Raises:
        ValueError: one is not a number, or all are impossible.
    """
    rounded = np.round(np.asarray(log_probs, dtype=float), DECIMALS)
    if np.isnan(rounded).any() or np.isneginf(rounded).all() or np.isposinf(rounded).any():
        raise ValueError(f"the replies have no probabilities: their logarithms are {list(log_probs)}")
    shares = np.exp(rounded - rounded.max())
    return [float(share) for share in shares / shares.sum()]


def soft_label(straight: float, swapped: float, clamp: float | None = None) -> float:
    """The probability that the first of two answers is better, from its readings in both orders.

    Args:
        straight: probability of "the first shown is better", in this order.
        swapped: the same in the other order.
        clamp: the lowest probability; the highest is one less this. Constitutional AI clamps labels after reasoning to
            40 to 60 % (arXiv 2212.08073, section 4.1), since a model is too sure of what it has just argued for.

    >>> soft_label(0.9, 0.3)
    0.8
    >>> soft_label(0.9, 0.3, clamp=0.4)
    0.6
    """
    value = round((straight + (1 - swapped)) / 2, 10)  # so that 1 − p of one order is exactly p of the other
    return value if clamp is None else min(max(value, clamp), 1 - clamp)


def direct_score(log_probs: Sequence[float]) -> float:
    """The expected score of an answer, from 1 to 10 (arXiv 2309.00267, section 3.2.2).

    Args:
        log_probs: of the replies 1 to 10.

    >>> direct_score([0.0] * 10)
    5.5
    """
    shares = probabilities(log_probs)
    return round(sum(value * share for value, share in zip(VALUES, shares, strict=True)), 10)


def as_reward(score: float) -> float:
    """A direct score from 1 to 10 as a reward from −1 to 1.

    >>> as_reward(1), as_reward(5.5), as_reward(10)
    (-1.0, 0.0, 1.0)
    """
    return 2 * (score - VALUES[0]) / (VALUES[-1] - VALUES[0]) - 1


@dataclass
class LabelTally:
    """What labels tell of the model that gave them, counted one by one."""

    compared: int = 0
    labeled: int = 0
    same_place: int = 0
    bits: float = 0.0
    first_failure: str | None = None

    def add(self, label: Label) -> None:
        self.compared += 1
        if label.value is None or label.straight is None or label.swapped is None:
            self.first_failure = self.first_failure or label.failure
            return
        self.labeled += 1
        self.bits -= sum(p * math.log2(p) for p in (label.value, 1 - label.value) if p > 0)
        both = label.straight, label.swapped
        self.same_place += EVEN not in both and (both[0] > EVEN) == (both[1] > EVEN)

    def record(self) -> dict[str, Any]:
        """Counts and rates; those of no label are None.

        place_bias: share of pairs in which the same place wins in both orders; the paper found 18, 21 and 56 % for a
        large, a middle and a small model (section 4.5). entropy_bits: mean entropy of the labels, 0 if the model is
        always sure, 1 if it never is.
        """
        rates = {"place_bias": self.same_place, "entropy_bits": self.bits}
        found = {name: total / self.labeled if self.labeled else None for name, total in rates.items()}
        return {"compared": self.compared, "labeled": self.labeled, **found, "first_failure": self.first_failure}
