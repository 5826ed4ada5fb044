"""Combine several rewards of one sample: weights, thresholds, gates and a length penalty."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from data.rows import BY_THE_ANSWER, Score

TRUNCATED = "truncated at the token limit"


@dataclass(frozen=True)
class Part:
    """How one of several rewards counts.

    Attributes:
        weight: factor of its value.
        at_least: from here on its value counts as 1, below as 0. None: the value counts as it is.
        gate: if it misses `at_least` (without `at_least`: if its verdict is not `correct`), the total is `wrong`, 0.
    """

    weight: float = 1.0
    at_least: float | None = None
    gate: bool = False


@dataclass(frozen=True)
class Combination:
    """How several rewards are combined: the sum of weight · value, less the penalty.

    Attributes:
        parts: by name.
        passes_at: the total from which on a sample is `correct`.
        free_tokens: tokens of an answer that are not penalized.
        per_token: penalty for each further token.
    """

    parts: Mapping[str, Part]
    passes_at: float = 1.0
    free_tokens: int = 0
    per_token: float = 0.0


def combine(scores: Mapping[str, Score], tokens: int, combination: Combination) -> Score:
    """Combine several scores of one sample, whose answer has `tokens` tokens.

    If a part reached no verdict, neither does the total: it gets that part's verdict and no value. The answer is the
    first one that a part extracted. Each part's score is kept in `parts`.
    """
    kept = [{"name": name, "value": score.value, "verdict": score.verdict} for name, score in scores.items()]
    answer = next((score.answer for score in scores.values() if score.answer is not None), None)
    explanation = "; ".join(f"{name}: {score.explanation}" for name, score in scores.items())
    failed = [score for score in scores.values() if score.verdict == "error"]
    if failed and all(score.explanation.startswith(BY_THE_ANSWER) for score in failed):
        explanation = BY_THE_ANSWER + explanation
    whole = Score(None, "error", explanation, answer, parts=kept)
    for verdict in ("error", "timeout"):
        if any(score.verdict == verdict for score in scores.values()):
            return replace(whole, verdict=verdict)
    total, closed = 0.0, False
    for name, part in combination.parts.items():
        value = scores[name].value
        assert value is not None
        reached = scores[name].verdict == "correct" if part.at_least is None else value >= part.at_least
        closed = closed or (part.gate and not reached)
        total += part.weight * (value if part.at_least is None else float(reached))
    if closed:
        return replace(whole, value=0.0, verdict="wrong")
    total -= combination.per_token * max(0, tokens - combination.free_tokens)
    return replace(whole, value=total, verdict="correct" if total >= combination.passes_at else "wrong")
