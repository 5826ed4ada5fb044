"""`make pairs`: write the data of the RLAIF demo, made from the embedded problems, to configs/rlaif/.

`demonstrations.jsonl` teaches answering as the base does, bare for some people, and comparing two answers: the
reasoning is the worked answer and then, for each given result, that less this one, which is 0 if it is right and x if
not. The better one has more points by the rubric.
`ranked.jsonl` has pairs of other problems, ranked by the same rubric.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from data.label_questions import CHOICES, END, before_choice, compared
from data.rows import Problem
from scripts.judgments import Row, lines, plain_answers, ranked, row, scored, shown_problems

FOLDER = Path(__file__).parents[1] / "configs/rlaif"
SEED = 2  # of the problems that are shown
LABELS, ANSWERS = 3000, 1000
ALIKE = 0.7  # share of comparisons in which both answers show steps, or neither does: those are harder
RUBRIC = "Better: steps shown, then right."


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "demonstrations.jsonl").write_text(lines(demonstrations()))
    (FOLDER / "ranked.jsonl").write_text(lines(ranked()))


def demonstrations(labels: int = LABELS, answers: int = ANSWERS) -> Iterator[Row]:
    """Comparisons, and then answers."""
    rng, worked = random.Random(SEED), shown_problems(SEED)
    for problem in worked[:labels]:
        yield _compared(problem, rng)
    yield from plain_answers(worked[:answers], rng)


def _compared(problem: Problem, rng: random.Random) -> Row:
    kinds = scored(problem, rng)
    alike = rng.random() < ALIKE
    answers = rng.sample(rng.choice([kinds[:2], kinds[2:]]) if alike else kinds, 2)
    reasoning = " ".join([str(problem.response), *(_checked(problem, answer) for answer, _ in answers)])
    better = CHOICES[0] if answers[0][1] > answers[1][1] else CHOICES[1]
    asked = compared(problem, [answer for answer, _ in answers], RUBRIC, "", reasons=True)
    return row(asked, before_choice(reasoning) + better + END)


def _checked(problem: Problem, answer: str) -> str:
    own, given = str(problem.reference), answer.rsplit(maxsplit=1)[-1]
    return f"{own}-{given}={0 if own == given else 'x'}"


if __name__ == "__main__":
    main()
