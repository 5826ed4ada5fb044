"""Selection, the filter of ReST-EM's E-step: which samples are trained on, and why the others are dropped."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

from data.rows import UNGRADED, Example, Problem, Sample, Score
from data.scoring import pair_up


def select_examples(
    problems: Iterable[Problem],
    samples: Iterable[Sample],
    scores: Iterable[Score],
    min_reward: float,
    max_per_problem: int,
    counts: Counter[str],
) -> Iterator[Example]:
    """Keep, per problem, the distinct samples of sufficient reward, best first, up to a cutoff.

    The cutoff keeps easy problems from dominating (arXiv 2312.06585, section 4: at most 10 per problem). Two answers
    are the same if they differ only in white space. Memory is bounded by one problem's samples.

    Args:
        counts: receives "samples", "kept", and a count for every reason to drop: a verdict, "truncated",
            "below_min_reward", "duplicate", "over_limit".

    Raises:
        ValueError: samples and scores do not belong together.
    """
    rows = zip(pair_up(problems, samples), scores, strict=True)
    for _, group in groupby(rows, key=lambda row: row[0][0].id):
        candidates = []
        for (problem, sample), score in group:
            if (score.problem_id, score.index) != (sample.problem_id, sample.index):
                raise ValueError(
                    f"Score {score.problem_id}/{score.index} was given for sample {sample.problem_id}/{sample.index}."
                )
            counts["samples"] += 1
            if reason := refusal(sample, score, min_reward):
                counts[reason] += 1
            else:
                candidates.append((problem, sample, float(score.value or 0.0)))
        yield from _best_distinct(candidates, max_per_problem, counts)


def refusal(sample: Sample, score: Score, min_reward: float) -> str | None:
    """Why a sample is not good enough to be trained on; None if it is."""
    if sample.truncated:
        return "truncated"
    if score.value is None or score.verdict in UNGRADED:
        return score.verdict
    if score.value < min_reward:
        return score.verdict if score.verdict != "correct" else "below_min_reward"
    return None


def worded(text: str) -> str:
    """What two answers that differ only in white space have in common: to selection, they are the same."""
    return " ".join(text.split())


def _best_distinct(
    candidates: list[tuple[Problem, Sample, float]], limit: int, counts: Counter[str]
) -> Iterator[Example]:
    seen: set[str] = set()
    for problem, sample, value in sorted(candidates, key=lambda c: (-c[2], c[1].index)):
        text = worded(sample.text)
        if text in seen:
            counts["duplicate"] += 1
        elif len(seen) >= limit:
            counts["over_limit"] += 1
        else:
            seen.add(text)
            counts["kept"] += 1
            prompt, own = problem.messages, sample.token_ids
            yield Example(
                sample.problem_id, sample.index, prompt, sample.text, own, sample.policy, value, problem.source
            )
