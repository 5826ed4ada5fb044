"""Is a judge any good? Its opinions of pairs whose better side people have named, as numbers.

Agreement is the pairwise accuracy of Self-Rewarding Language Models (arXiv 2401.10020, section 3.1.3). The others tell
what makes a judge useless whatever its accuracy: one score for everything, a score for length, or for a place.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from data.judge_questions import Kind, Opinion
from data.opinions import Rates, result
from data.rows import MeasuredRow, Pair, Problem, Sample, Score

CHOSEN, REJECTED = 0, 1  # the sides of a pair as samples
AGREES, TIE, DISAGREES = 1.0, 0.5, 0.0
TIES, ENTROPY, WITH_ITSELF, WITH_LENGTH, FLIPS = "ties", "entropy_bits", "self_agreement", "length_correlation", "flips"


def as_samples(pair: Pair) -> tuple[Problem, list[Sample]]:
    """A pair as a problem with two answers, the chosen one first. The problem's id tells pairs of a prompt apart."""
    apart = hashlib.sha256(f"{pair.problem_id}/{pair.index}".encode()).hexdigest()[: len(pair.problem_id)]
    identity = pair.problem_id if pair.index == 0 else apart
    problem = Problem(identity, pair.messages, None, None, pair.chosen_source, "train")
    sides = ((CHOSEN, pair.chosen), (REJECTED, pair.rejected))
    return problem, [Sample(identity, side, text, [], "stop", "", 0, "") for side, text in sides]


def agreement(scores: Iterable[Score]) -> list[MeasuredRow]:
    """For each pair 1 if the judge gives the chosen side more, 0 if less, and a half for a tie.

    A pair of which a side got no score is left out.

    Args:
        scores: of `as_samples`, in their order.
    """
    found = []
    for chosen, rejected in zip(*[iter(scores)] * 2, strict=True):
        if chosen.value is None or rejected.value is None:
            continue
        value = TIE if chosen.value == rejected.value else AGREES if chosen.value > rejected.value else DISAGREES
        found.append(MeasuredRow(str(chosen.problem_id), 0, value))
    return found


def judge_details(
    agreed: Sequence[MeasuredRow], opinions: Sequence[Opinion], lengths: Sequence[int], scores: Sequence[Score]
) -> dict[str, float]:
    """What else tells whether a judge can be used. Whatever cannot be computed is left out.

    ties: share of the pairs. entropy_bits: of its replies' values. self_agreement: share of two opinions of the same
    that are equal. length_correlation: Pearson's, of scores and lengths. flips: share of the comparisons in which the
    order decided, for a judge that compares.

    Args:
        lengths: of all answers, in characters.
        scores: of all answers.
    """
    rates = Rates()
    rates.add_opinions(opinions)
    found = {ENTROPY: rates.entropy, FLIPS: rates.flip_rate, WITH_ITSELF: _with_itself(opinions)}
    points = [(n, score.value) for n, score in zip(lengths, scores, strict=True) if score.value is not None]
    found |= {WITH_LENGTH: correlation(points)}
    found |= {TIES: sum(row.value == TIE for row in agreed) / len(agreed) if agreed else None}
    return {name: value for name, value in found.items() if value is not None}


def correlation(points: Sequence[tuple[float, float]]) -> float | None:
    """Pearson's correlation; None of fewer than two points, or if either side is constant."""
    sides = [np.asarray(side, dtype=float) for side in zip(*points, strict=True)]
    if len(points) < 2 or any(np.ptp(side) == 0 for side in sides):
        return None
    return float(np.corrcoef(sides)[0, 1])


def _with_itself(opinions: Iterable[Opinion]) -> float | None:
    of: dict[tuple[str, int, int, bool], list[str]] = defaultdict(list)
    for opinion in opinions:
        if opinion.value is not None:
            of[opinion.problem_id, opinion.index, opinion.other, opinion.swapped].append(opinion.value)
    equal = Counter(one == other for values in of.values() for one, other in combinations(values, 2))
    return equal[True] / equal.total() if equal else None


def agreeing(kind: Kind, opinions: Iterable[Opinion]) -> list[Opinion]:
    """The judgments that rank pairs as people did: pointwise, both sides' if the chosen one gets more.

    Args:
        opinions: of `as_samples`.
    """
    read = [opinion for opinion in opinions if opinion.value is not None]
    if kind == "pairwise":
        return [opinion for opinion in read if result(opinion) == 1]
    points: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    for opinion in read:
        points[opinion.problem_id, opinion.opinion][opinion.index] = int(opinion.value or 0)
    right = {key for key, of in points.items() if len(of) == 2 and of[CHOSEN] > of[REJECTED]}
    return [opinion for opinion in read if (opinion.problem_id, opinion.opinion) in right]


def balanced(opinions: Sequence[Opinion]) -> list[Opinion]:
    """Judgments of which the most frequent value is no more frequent than the next; which ones stay, a hash decides.

    A judge that learns from its own judgments would otherwise say the usual more and more often.
    """
    (usual, _), (_, most), *_ = [*Counter(opinion.value for opinion in opinions).most_common(2), (None, 0), (None, 0)]
    of_usual = [opinion for opinion in opinions if opinion.value == usual]
    kept = {_place(opinion) for opinion in sorted(of_usual, key=_drawn)[: most or len(of_usual)]}
    return [opinion for opinion in opinions if opinion.value != usual or _place(opinion) in kept]


def _place(opinion: Opinion) -> tuple[str, int, int, int, bool]:
    return opinion.problem_id, opinion.opinion, opinion.index, opinion.other, opinion.swapped


def _drawn(opinion: Opinion) -> str:
    return hashlib.sha256(repr(_place(opinion)).encode()).hexdigest()


def useless(details: dict[str, float], least_entropy: float, most_length: float) -> str | None:
    """Why a judge's scores cannot teach anything, or None.

    Args:
        least_entropy: of its replies' values, in bits.
        most_length: of the correlation of scores with length, without its sign.
    """
    entropy, with_length = details.get(ENTROPY, math.inf), details.get(WITH_LENGTH, 0.0)
    if entropy < least_entropy:
        return (
            f"the judge says nearly the same of every answer: the entropy of its scores is {entropy:.2f} bits, less "
            f"than judge_limits.entropy {least_entropy:g}"
        )
    if abs(with_length) > most_length:
        return (
            f"the judge goes by length: its scores correlate with it by {with_length:.2f}, more than "
            f"judge_limits.length {most_length:g}"
        )
    return None
