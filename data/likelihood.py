"""Metrics from a policy's likelihoods of gold answers and of pairs, alone or relative to a reference."""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from data.rows import GoldLikelihood, MeasuredRow, PairLikelihood

PreferenceLoss = Literal["logistic", "hinge"]
LogRatios = tuple[float, float]  # log p(y) − log p_ref(y) of the chosen and of the rejected answer, in nats


class LikelihoodMetrics(BaseModel):
    """Means over pairs. Log-probabilities are in nats; in SPIN, chosen is gold and rejected is the policy's own."""

    model_config = ConfigDict(frozen=True)
    pairs: int
    gap: float = Field(description="log p(chosen) − log p(rejected), summed over answer tokens. SPIN closes it.")
    chosen_per_token: float = Field(description="Log-probability per token of all chosen answers.")
    rejected_per_token: float = Field(description="Log-probability per token of all rejected answers.")
    chosen_tokens: float = Field(description="Mean length of the chosen answers.")
    rejected_tokens: float = Field(description="Mean length of the rejected answers.")


def likelihood_metrics(rows: Iterable[PairLikelihood]) -> LikelihoodMetrics:
    """Compute metrics from a stream of likelihoods.

    Raises:
        ValueError: no pairs.
    """
    count = chosen_tokens = rejected_tokens = 0
    chosen = rejected = 0.0
    for row in rows:
        count += 1
        chosen += row.chosen
        rejected += row.rejected
        chosen_tokens += row.chosen_tokens
        rejected_tokens += row.rejected_tokens
    if not count:
        raise ValueError("There are no pairs to measure.")
    return LikelihoodMetrics(
        pairs=count,
        gap=(chosen - rejected) / count,
        chosen_per_token=chosen / chosen_tokens,
        rejected_per_token=rejected / rejected_tokens,
        chosen_tokens=chosen_tokens / count,
        rejected_tokens=rejected_tokens / count,
    )


def loss_rows(rows: Iterable[GoldLikelihood]) -> list[MeasuredRow]:
    """The negative log-likelihood of each gold answer, weighted by its tokens; the sums give the loss per token."""
    return [MeasuredRow(row.problem_id, row.index, -row.log_prob, float(row.tokens)) for row in rows]


def loss_details(rows: Sequence[MeasuredRow]) -> dict[str, float]:
    """Perplexity, exp(loss per token), and the number of tokens. Empty without rows.

    A diverged policy can have a perplexity too large for a float; then it is left out.
    """
    tokens = sum(row.weight for row in rows)
    if not tokens:
        return {}
    loss = sum(row.value for row in rows) / tokens
    perplexity = {"perplexity": math.exp(loss)} if loss < math.log(sys.float_info.max) else {}
    return {**perplexity, "tokens": tokens}


def log_ratios(policy: Iterable[PairLikelihood], reference: Iterable[PairLikelihood]) -> list[LogRatios]:
    """How much likelier a policy finds both answers of each pair than its reference does.

    Raises:
        ValueError: the two were not measured on the same pairs.
    """
    ours, theirs = list(policy), {(row.problem_id, row.index): row for row in reference}
    if len(ours) != len(theirs) or not all((row.problem_id, row.index) in theirs for row in ours):
        raise ValueError("Log-ratios need the likelihoods of the same pairs by policy and reference.")
    both = [(row, theirs[row.problem_id, row.index]) for row in ours]
    return [(row.chosen - other.chosen, row.rejected - other.rejected) for row, other in both]


def accuracy_rows(policy: Sequence[PairLikelihood], reference: Iterable[PairLikelihood]) -> list[MeasuredRow]:
    """Whether each pair's chosen answer has the higher log-ratio: 1 or 0; a tie counts 0.5.

    So a policy that is its own reference scores 0.5, like random guessing. On human preference pairs this is DPO's
    reward accuracy; on gold over own answers, the accuracy of SPIN's discriminator.

    Raises:
        ValueError: the two were not measured on the same pairs.
    """
    found = zip(policy, log_ratios(policy, reference), strict=True)
    return [
        MeasuredRow(row.problem_id, row.index, float(np.sign(chosen - rejected) + 1) / 2)
        for row, (chosen, rejected) in found
    ]


def margin_rows(policy: Sequence[PairLikelihood], reference: Iterable[PairLikelihood]) -> list[MeasuredRow]:
    """How much higher each pair's chosen answer has its log-ratio than the rejected one, in nats.

    Raises:
        ValueError: the two were not measured on the same pairs.
    """
    found = zip(policy, log_ratios(policy, reference), strict=True)
    return [MeasuredRow(row.problem_id, row.index, chosen - rejected) for row, (chosen, rejected) in found]


def preference_metrics(
    ratios: Sequence[LogRatios], beta: float, loss: PreferenceLoss, labels: Sequence[float] | None = None
) -> dict[str, float]:
    """Means over pairs of the loss and of DPO's rewards β · log-ratio (arXiv 2305.18290), under TRL's names.

    `rewards/accuracies` is the share whose chosen answer has strictly the higher reward, as in TRL: a tie counts 0.

    Args:
        labels: the probability that the chosen answer is better, which changes the loss: models.training.preference.

    Raises:
        ValueError: no pairs.
    """
    if not ratios:
        raise ValueError("There are no pairs to measure.")
    chosen, rejected = beta * np.asarray(ratios, dtype=float).T
    margins = chosen - rejected
    losses = np.logaddexp(0, -margins) if loss == "logistic" else np.maximum(0, 1 - margins)
    if labels is not None:
        losses = losses + (1 - np.asarray(labels, dtype=float)) * margins
    found = {
        "loss": losses,
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": chosen > rejected,
        "rewards/margins": margins,
    }
    return {name: float(values.mean()) for name, values in found.items()}
