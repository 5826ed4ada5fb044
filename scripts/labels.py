"""`make pairs`: write the data of the RLAIF demo, made from the embedded problems, to configs/rlaif/.

`demonstrations.jsonl` teaches answering as the base does, bare for some people, and comparing two answers: the
reasoning is the worked answer and then by how much each given result differs, and the better one has more points by the
rubric.
`ranked.jsonl` has pairs of other problems, ranked by the same rubric.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from data.label_questions import CHOICES, END, before_choice, compared
from data.rows import Problem
from scripts.judgments import Row, difference, lines, plain_answers, ranked, row, scored, shown_problems

FOLDER = Path(__file__).parents[1] / "configs/rlaif"
SEED = 2  # of the problems that are shown
LABELS, ANSWERS = 3000, 1500
RUBRIC = "Better: 3 points if steps are shown, 2 more if the result is right."


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
    answers = rng.sample(scored(problem, rng), 2)
    reasoning = " ".join([str(problem.response), *(difference(problem, answer) for answer, _ in answers)])
    better = CHOICES[0] if answers[0][1] > answers[1][1] else CHOICES[1]
    asked = compared(problem, [answer for answer, _ in answers], RUBRIC, "", reasons=True)
    return row(asked, before_choice(reasoning) + better + END)


if __name__ == "__main__":
    main()
