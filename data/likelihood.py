"""What a policy's likelihoods of pairs come to in figures."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from data.rows import PairLikelihood


class LikelihoodMetrics(BaseModel):
    """Means over pairs. Log-probabilities are in nats; in SPIN, chosen is the gold answer and rejected the own one."""

    model_config = ConfigDict(frozen=True)
    pairs: int
    gap: float = Field(description="log p(chosen) − log p(rejected), summed over answer tokens. SPIN closes it.")
    chosen_per_token: float = Field(description="Log-probability per token of all chosen answers.")
    rejected_per_token: float = Field(description="Log-probability per token of all rejected answers.")
    chosen_tokens: float = Field(description="Mean length of the chosen answers.")
    rejected_tokens: float = Field(description="Mean length of the rejected answers.")


def likelihood_metrics(rows: Iterable[PairLikelihood]) -> LikelihoodMetrics:
    """Sum up a file of likelihoods, streamed.

    Raises:
        ValueError: there is none.
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
