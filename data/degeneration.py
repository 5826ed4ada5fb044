"""Degeneration of a policy's own answers: too short or too long, repetitive, or never ending."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from data.rows import Sample

N = 4


class Degeneration(BaseModel):
    """Own answers compared with the gold answers to the same prompts. Shares are fractions of 1; lengths in tokens."""

    model_config = ConfigDict(frozen=True)
    samples: int
    mean_tokens: float
    gold_tokens: float = Field(description="Mean length of the gold answers, counted once per sample.")
    repeated: float = Field(description="Mean share of an answer's 4-grams of tokens that repeat an earlier one.")
    ended: float = Field(description="Share of answers that ended on their own rather than at the token limit.")

    @property
    def length_ratio(self) -> float:
        """Mean length divided by the gold answers' mean length."""
        return self.mean_tokens / self.gold_tokens


def degeneration(samples: Iterable[Sample], gold_tokens: Mapping[str, int]) -> Degeneration:
    """Measure own answers.

    Args:
        gold_tokens: length of the gold answer by problem id. Samples of other problems are left out.

    Raises:
        ValueError: no sample belongs to a problem with a gold answer.
    """
    found = [sample for sample in samples if sample.problem_id in gold_tokens]
    if not found:
        raise ValueError("There are no own answers to measure.")
    repeated = [share for sample in found if (share := repeated_share(sample.token_ids)) is not None]
    return Degeneration(
        samples=len(found),
        mean_tokens=sum(len(sample.token_ids) for sample in found) / len(found),
        gold_tokens=sum(gold_tokens[sample.problem_id] for sample in found) / len(found),
        repeated=sum(repeated) / len(repeated) if repeated else 0.0,
        ended=sum(not sample.truncated for sample in found) / len(found),
    )


def repeated_share(token_ids: Sequence[int], n: int = N) -> float | None:
    """1 − distinct n-grams / n-grams of one answer, seq-rep-n of arXiv 1908.04319; None if it has no n-gram."""
    grams = [tuple(token_ids[start : start + n]) for start in range(len(token_ids) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None
