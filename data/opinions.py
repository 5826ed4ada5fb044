"""Turn a judge's opinions into a score for each sample, and into rates that show how reliable the judge is.

An unreadable reply is ignored: it lowers no score. Questions and parsing are in judge_questions.py.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data.judge_questions import Kind, Opinion, read_reply
from data.rows import Sample, Score

ALONE = "the problem has no other finished answer to compare this one with"
SHOWN_CHARACTERS = 300  # of a reply's reasoning shown in a score's explanation


def score_problem(
    kind: Kind,
    samples: Sequence[Sample],
    opinions: Sequence[Opinion],
    passes_at: float,
    grader: str,
    truncated: bool = False,
) -> Iterator[Score]:
    """Scores of one problem's samples, in order, from all opinions about them.

    Pointwise, the value is the mean of the readable scores, 0 to 5. Pairwise, it is the mean over a sample's
    comparisons, 0 to 1: 1 for a win in both orders, 0 for a loss, 0.5 for a tie and if the orders disagree. The verdict
    is `correct` from `passes_at` on. A truncated sample is `wrong`, unless `truncated` ones are judged as well. If no
    reply could be read, or there was nothing to compare with, the verdict is `error`, without a value: a failed
    judgment says nothing about an answer.
    """
    values, explanations = _pointwise(opinions) if kind == "pointwise" else _pairwise(opinions)
    failures = {i: o.failure for o in reversed(opinions) if o.failure for i in (o.index, o.other)}
    for sample in samples:
        if sample.truncated and not truncated:
            score = Score(0.0, "wrong", "truncated at the token limit")
        elif sample.index in values:
            value = values[sample.index]
            score = Score(value, "correct" if value >= passes_at else "wrong", explanations[sample.index])
        elif sample.index in failures:
            score = Score(None, "error", f"the judge gave no readable reply: {failures[sample.index]}")
        else:
            score = Score(None, "error", ALONE)
        yield Score(score.value, score.verdict, score.explanation, None, sample.problem_id, sample.index, grader)


def _pointwise(opinions: Iterable[Opinion]) -> tuple[dict[int, float], dict[int, str]]:
    given: dict[int, list[Opinion]] = defaultdict(list)
    for opinion in opinions:
        if opinion.value is not None:
            given[opinion.index].append(opinion)
    values = {index: sum(int(o.value or 0) for o in read) / len(read) for index, read in given.items()}
    words = {
        index: f"{values[index]:.2f} of 5 ({', '.join(str(o.value) for o in read)}): {_reasoning('pointwise', read[0])}"
        for index, read in given.items()
    }
    return values, words


def _pairwise(opinions: Iterable[Opinion]) -> tuple[dict[int, float], dict[int, str]]:
    compared: dict[tuple[int, int], list[float]] = defaultdict(list)
    first: dict[int, Opinion] = {}
    for opinion, back in both_orders(opinions):
        one, other = result(opinion), result(back)
        compared[opinion.index, opinion.other].append(one if one == other else 0.5)
        for index in (opinion.index, opinion.other):
            first.setdefault(index, opinion)
    results: dict[int, list[float]] = defaultdict(list)
    for (index, against), outcomes in compared.items():
        results[index].append(sum(outcomes) / len(outcomes))
        results[against].append(sum(1 - outcome for outcome in outcomes) / len(outcomes))
    values = {index: sum(found) / len(found) for index, found in results.items()}
    words = {}
    for index, value in values.items():
        name = "A" if first[index].index == index else "B"
        reasoning = _reasoning("pairwise", first[index])
        words[index] = f"{value:.2f} of 1 over {len(results[index])} comparisons; as {name}: {reasoning}"
    return values, words


def both_orders(opinions: Iterable[Opinion]) -> Iterator[tuple[Opinion, Opinion]]:
    """Pairs of opinions about one comparison in both orders, if both are readable. They follow each other."""
    waiting: Opinion | None = None
    for opinion in opinions:
        if not opinion.swapped:
            waiting = opinion
        elif waiting and waiting.value and opinion.value:
            yield waiting, opinion


def result(opinion: Opinion) -> float:
    """1 if sample `index` is better, 0 if `other` is, 0.5 for a tie."""
    if opinion.value == "tie":
        return 0.5
    return float((opinion.value == "B") == opinion.swapped)


def _reasoning(kind: Kind, opinion: Opinion) -> str:
    return read_reply(kind, opinion.text)[1][:SHOWN_CHARACTERS]


@dataclass
class Rates:
    """Statistics of a judge, over any number of opinions and scores."""

    asked: int = 0
    replied: int = 0
    parsed: int = 0
    comparisons: int = 0
    flips: int = 0
    alone: int = 0
    values: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    first_failure: str = ""

    def add_opinions(self, opinions: Sequence[Opinion]) -> None:
        self.asked += len(opinions)
        self.replied += sum(bool(o.text) for o in opinions)
        self.values.update(o.value for o in opinions if o.value is not None)
        self.parsed = self.values.total()
        self.first_failure = self.first_failure or next((o.failure for o in opinions if o.failure), "")
        for opinion, back in both_orders(opinions):
            self.comparisons += 1
            self.flips += result(opinion) != result(back)

    def add_scores(self, scores: Iterable[Score]) -> None:
        for score in scores:
            self.verdicts[score.verdict] += 1
            self.alone += score.explanation == ALONE

    @property
    def parse_rate(self) -> float | None:
        """Share of the questions with a readable reply; None if nothing was asked."""
        return self.parsed / self.asked if self.asked else None

    @property
    def flip_rate(self) -> float | None:
        """Share of the comparisons on which the two orders disagree; None if there were none."""
        return self.flips / self.comparisons if self.comparisons else None

    @property
    def entropy(self) -> float | None:
        """Entropy of the replies' values in bits: 0 for a judge that always gives the same; None without replies."""
        shares = [n / self.parsed for n in self.values.values()]
        return abs(sum(share * math.log2(share) for share in shares)) if shares else None

    def record(self) -> dict[str, Any]:
        """The rates as JSON values."""
        return {
            "asked": self.asked,
            "replied": self.replied,
            "parsed": self.parsed,
            "parse_rate": self.parse_rate,
            "comparisons": self.comparisons,
            "flips": self.flips,
            "flip_rate": self.flip_rate,
            "distribution": dict(sorted(self.values.items())),
            "entropy_bits": self.entropy,
            "verdicts": dict(sorted(self.verdicts.items())),
            "alone": self.alone,
            "first_failure": self.first_failure,
        }
