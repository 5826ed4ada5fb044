"""Pairing, the data of SPIN: the gold answer to a prompt, preferred to the opponent's own."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from data.rows import Pair, Problem, Sample
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
