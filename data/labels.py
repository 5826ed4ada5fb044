"""Preference labels from a model's probabilities: RLAIF (arXiv 2309.00267, section 2).

A model reasons about two answers, shown as 1 and 2, and then says which one it prefers. What counts is not what it
says, but how probable either choice is. Judges favor a place, so each pair is shown in both orders, and the mean of the
two readings is its soft label. Readings are rounded first, so that a label does not depend on last digits.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

DIGITS = 4  # of a reading
VALUES = tuple(range(1, 11))  # of a direct score


@dataclass(frozen=True, slots=True)
class Label:
    """What a model says of two answers to one problem, `first` and `second`, their indices.

    Attributes:
        reading: probability that `first` is better, when it is shown as 1.
        swapped_reading: the same, when it is shown as 2.
        reasoning, swapped_reasoning: the model's unedited words before its choice.
        principle: what it was told to judge by, if anything.
    """

    problem_id: str
    first: int
    second: int
    reading: float
    swapped_reading: float
    reasoning: str
    swapped_reasoning: str
    principle: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            ("problem_id", pa.string()),
            ("first", pa.int32()),
            ("second", pa.int32()),
            ("reading", pa.float64()),
            ("swapped_reading", pa.float64()),
            ("reasoning", pa.string()),
            ("swapped_reasoning", pa.string()),
            ("principle", pa.string()),
        ]
    )

    @property
    def probability(self) -> float:
        """That `first` is better: the soft label."""
        return soft_label(self.reading, self.swapped_reading)

    @property
    def goes_by_place(self) -> bool:
        """Whether the same place wins in both orders."""
        return (self.reading - 0.5) * (self.swapped_reading - 0.5) < 0


def reading(log_probs: Sequence[float], clamp: tuple[float, float] = (0.0, 1.0)) -> float:
    """The probability of the first of two choices, from the log-probabilities of both.

    Args:
        clamp: least and greatest probability; Constitutional AI (arXiv 2212.08073, section 4.1) has 0.4 and 0.6 after
            reasoning, since a model is too sure of what it has reasoned out.
    """
    first, second = log_probs
    probability = 1 / (1 + math.exp(min(second - first, 700)))
    return min(max(round(probability, DIGITS), clamp[0]), clamp[1])


def soft_label(one: float, swapped: float) -> float:
    """The mean of both orders' readings. That of the pair swapped is exactly one minus it."""
    scale = 10**DIGITS
    return (round(one * scale) + round(swapped * scale)) / (2 * scale)


def direct_score(log_probs: Sequence[float]) -> float:
    """A score from −1 to 1, from the log-probabilities of the values 1 to 10, each with what ends it (d-RLAIF, 2.4).

    The mean value under the probabilities, normalized over the ten: s = Σ i·P(i), and 2(s − 1)/9 − 1.
    """
    top = max(log_probs)
    weights = [math.exp(one - top) for one in log_probs]
    mean = sum(value * weight for value, weight in zip(VALUES, weights, strict=True)) / sum(weights)
    return 2 * (mean - VALUES[0]) / (VALUES[-1] - VALUES[0]) - 1


def place_bias(labels: Iterable[Label]) -> float | None:
    """Share of the pairs in which the same place wins in both orders; None without pairs."""
    found = [label.goes_by_place for label in labels]
    return sum(found) / len(found) if found else None
