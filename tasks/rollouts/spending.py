"""What sampling in rounds took, against all answers to every problem."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from data.rows import Sample, Score
from data.scoring import Tally
from tasks.stage.contract import load_finished

DIFFICULTIES = "none", "less than half", "half or more", "all"  # of a problem's first answers are correct


UNTIL = "until"  # what ended a problem's sampling, in the configuration of the stage that sampled


@dataclass(frozen=True)
class Budget:
    """Answers per problem: in the first round, and at most."""

    first: int
    most: int


def budget_of(samples: Path) -> Budget | None:
    """The budget of samples in a stage's folder; None if all problems have equally many."""
    stage = load_finished(samples.parent)
    told = stage.manifest.config if stage else {}
    if UNTIL not in told:
        return None
    return Budget(min(told[UNTIL]["max_per_problem"], told["samples"]), told["samples"])


class Spent(BaseModel):
    """Answers and tokens of problems of one difficulty, and about what all answers to them would have taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problems: int = 0
    samples: int = 0
    tokens: int = 0
    budget_samples: int = 0
    budget_tokens: float = 0


def spending(samples: Iterable[Sample], scores: Iterable[Score], budget: Budget) -> tuple[Tally, dict[str, Spent]]:
    """Count the first rounds, and what all rounds took, by how many answers of the first were correct."""
    first, spent = Tally(), dict.fromkeys(DIFFICULTIES, Spent())
    for _, rows in groupby(zip(samples, scores, strict=True), key=lambda row: row[0].problem_id):
        drawn = list(rows)
        for sample, score in drawn[: budget.first]:
            first.count(sample, score)
        correct = sum(score.verdict == "correct" for _, score in drawn[: budget.first])
        tokens = sum(len(sample.token_ids) for sample, _ in drawn)
        difficulty = _difficulty(correct / budget.first)
        so_far = spent[difficulty]
        spent[difficulty] = Spent(
            problems=so_far.problems + 1,
            samples=so_far.samples + len(drawn),
            tokens=so_far.tokens + tokens,
            budget_samples=so_far.budget_samples + budget.most,
            budget_tokens=so_far.budget_tokens + tokens * budget.most / len(drawn),
        )
    return first, spent


def spared(spent: Mapping[str, Spent]) -> str:
    """The log's summary of what sampling took, if it ended early."""
    budget = sum(row.budget_tokens for row in spent.values())
    share = sum(row.tokens for row in spent.values()) / budget if budget else 1.0
    answers = sum(row.samples for row in spent.values()), sum(row.budget_samples for row in spent.values())
    drawn = f"; {answers[0]:,} of {answers[1]:,} answers drawn, about {100 * share:.0f} % of their tokens"
    return drawn if spent else ""


def _difficulty(solved: float) -> str:
    """The name of a share of correct answers."""
    if solved in (0, 1):
        return DIFFICULTIES[0 if solved == 0 else -1]
    return DIFFICULTIES[1 if solved < 0.5 else 2]
