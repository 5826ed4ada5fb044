"""Pairs of answers: gold over the opponent's own (SPIN), best over worst (Self-Rewarding), two with a label (RLAIF)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from data.labels import EVEN, Label
from data.rows import Pair, Problem, Sample, Score
from data.scoring import pair_up


def pair_gold_over_own(
    problems: Iterable[Problem],
    samples: Iterable[Sample],
    render: Callable[[str], list[int]],
    max_tokens: int,
    counts: Counter[str],
) -> Iterator[Pair]:
    """Pair each problem's gold answer with every distinct answer that the opponent wrote to it.

    Pairs whose two sides are equal, or one of them empty, carry no signal and are dropped (arXiv 2401.01335 learns from
    the difference between gold and own answers). Own answers that stopped at `max_tokens` have no end-of-turn token;
    gold answers are cut at the same length, so length does not give either side away.

    Args:
        samples: in the order of their problems.
        render: token ids of a gold answer, with the token that ends it.
        counts: receives "samples", "kept", and a count for every reason to drop: "equal", "empty", "duplicate"; also
            "gold cut" and "own truncated" among the kept.
    """
    for _, group in groupby(pair_up(problems, samples), key=lambda row: row[0].id):
        seen: set[str] = set()
        gold: list[int] | None = None
        for problem, sample in group:
            counts["samples"] += 1
            own, wanted = " ".join(sample.text.split()), " ".join((problem.response or "").split())
            if not own or not wanted:
                counts["empty"] += 1
                continue
            gold = gold or render(problem.response or "")
            if own == wanted or sample.token_ids == gold[:max_tokens]:
                counts["equal"] += 1
            elif own in seen:
                counts["duplicate"] += 1
            else:
                seen.add(own)
                counts["kept"] += 1
                counts["gold cut"] += len(gold) > max_tokens
                counts["own truncated"] += sample.truncated
                yield Pair(
                    problem_id=problem.id,
                    index=sample.index,
                    messages=problem.messages,
                    chosen=problem.response or "",
                    rejected=sample.text,
                    chosen_token_ids=gold[:max_tokens],
                    rejected_token_ids=sample.token_ids,
                    chosen_source=problem.source,
                    rejected_source=sample.policy,
                )


def pair_best_over_worst(
    problems: Iterable[Problem],
    samples: Iterable[Sample],
    scores: Iterable[Score],
    counts: Counter[str],
    answers: Counter[str],
) -> Iterator[Pair]:
    """Pair each problem's answer of the highest score with that of the lowest (arXiv 2401.10020, section 2.3).

    If all scores of a problem are equal, it has no pair. Answers that were cut off, are empty or got no score take no
    part: a judgment that failed says nothing about an answer. Of equal scores, the first answer's counts.

    Args:
        samples, scores: in the order of their problems.
        counts: receives of problems "problems", "kept", "tie", "equal" (the same answer scored differently) and
            "too few" (scored answers).
        answers: receives of answers "truncated", "empty" and "not scored".
    """
    scored = zip(pair_up(problems, samples), scores, strict=True)
    for _, group in groupby(scored, key=lambda row: row[0][0].id):
        rows = [(problem, sample, score) for (problem, sample), score in group]
        counts["problems"] += 1
        values = [(_value(sample, score, answers), sample) for _, sample, score in rows]
        usable = [(value, sample) for value, sample in values if value is not None]
        if len(usable) < 2:
            counts["too few"] += 1
            continue
        best, worst = (of(usable, key=lambda row: row[0]) for of in (max, min))
        if best[0] == worst[0]:
            counts["tie"] += 1
            continue
        if best[1].text.split() == worst[1].text.split():
            counts["equal"] += 1
            continue
        counts["kept"] += 1
        yield _own_pair(rows[0][0], best[1], worst[1])


def pair_labeled(
    problems: Iterable[Problem],
    samples: Iterable[Sample],
    labels: Iterable[Label],
    counts: Counter[str],
    above: float = EVEN,
) -> Iterator[Pair]:
    """Pairs of two answers to a problem with the probability that the chosen one is better, which is more than `above`.

    Args:
        samples, labels: in the order of their problems.
        counts: receives of comparisons "compared", "kept", "no label" and "undecided" (neither is better by more).
    """
    waiting = iter(labels)
    label = next(waiting, None)
    for _, group in groupby(pair_up(problems, samples), key=lambda row: row[0].id):
        rows = list(group)
        problem, drawn = rows[0][0], {sample.index: sample for _, sample in rows}
        while label is not None and label.problem_id == problem.id:
            counts["compared"] += 1
            if label.value is None:
                counts["no label"] += 1
            elif max(label.value, 1 - label.value) <= above:
                counts["undecided"] += 1
            else:
                counts["kept"] += 1
                first = label.value > EVEN
                chosen, rejected = (label.index, label.other) if first else (label.other, label.index)
                share = label.value if first else 1 - label.value
                yield _own_pair(problem, drawn[chosen], drawn[rejected], share)
            label = next(waiting, None)


def comparable(samples: Sequence[Sample], counts: Counter[str]) -> list[tuple[Sample, Sample]]:
    """Pairs of answers to one problem to be compared: the first with the second, the third with the fourth.

    Args:
        counts: receives of answers "truncated", "empty", "equal" (to one before) and "alone".
    """
    usable: dict[str, Sample] = {}
    for sample in samples:
        worded = " ".join(sample.text.split())
        if sample.truncated:
            counts["truncated"] += 1
        elif not worded:
            counts["empty"] += 1
        elif worded in usable:
            counts["equal"] += 1
        else:
            usable[worded] = sample
    distinct = list(usable.values())
    counts["alone"] += len(distinct) % 2
    return list(zip(distinct[::2], distinct[1::2], strict=False))


def _own_pair(problem: Problem, chosen: Sample, rejected: Sample, label: float | None = None) -> Pair:
    """A pair of two answers of a policy."""
    return Pair(
        problem_id=problem.id,
        index=chosen.index,
        messages=problem.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_token_ids=chosen.token_ids,
        rejected_token_ids=rejected.token_ids,
        chosen_source=chosen.policy,
        rejected_source=rejected.policy,
        label=label,
    )


def _value(sample: Sample, score: Score, counts: Counter[str]) -> float | None:
    """An answer's score, or None if it takes no part, which is counted."""
    if sample.truncated:
        counts["truncated"] += 1
    elif not sample.text.strip():
        counts["empty"] += 1
    elif score.value is None:
        counts["not scored"] += 1
    else:
        return score.value
    return None
