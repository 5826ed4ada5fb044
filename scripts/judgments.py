"""`make pairs`: write the data of the Self-Rewarding demo, made from the embedded problems, to configs/self-rewarding/.

`demonstrations.jsonl` teaches answering as the base does, bare for some people, and judging: a judgment's reasoning
is the worked answer and then by how much the given result differs, and its score adds up as the rubric says.
`ranked.jsonl` has pairs of other problems, ranked by the same rubric.
"""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.arithmetic import PEOPLE, bare, person, worked_problems
from data.judge_questions import Question, messages
from data.rows import Problem, Sample
from scripts.pairs import bare_and_wrong, with_a_slip

FOLDER = Path(__file__).parents[1] / "configs/self-rewarding"
SEED, OTHERS = 0, 1  # of the problems that are shown, and of those that are ranked
JUDGMENTS, ANSWERS, RANKED = 3000, 1500, 200
BARE, BARE_PEOPLE = 0.8, 11  # as in configs/tiny.yaml
STEPS, RIGHT = 3, 2  # points
RUBRIC = f"Score: {STEPS} if steps are shown, {RIGHT} more if the result is right."

Row = dict[str, Any]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "demonstrations.jsonl").write_text(lines(demonstrations()))
    (FOLDER / "ranked.jsonl").write_text(lines(ranked()))


def demonstrations(judgments: int = JUDGMENTS, answers: int = ANSWERS) -> Iterator[Row]:
    """Judgments, and then answers."""
    rng, worked = random.Random(SEED), shown_problems(SEED)
    for problem in worked[:judgments]:
        yield _judgment(problem, *rng.choice(scored(problem, rng)))
    yield from plain_answers(worked[:answers], rng)


def plain_answers(problems: Sequence[Problem], rng: random.Random) -> Iterator[Row]:
    """Answers as the base writes them."""
    for problem in problems:
        is_bare = rng.random() < BARE and person(problem) in PEOPLE[:BARE_PEOPLE]
        yield row(problem.messages, (bare(problem) if is_bare else problem).response)


def ranked(count: int = RANKED) -> Iterator[Row]:
    """Two answers of different scores to each problem, the better one chosen."""
    rng = random.Random(OTHERS)
    for problem in shown_problems(OTHERS)[:count]:
        better, worse = sorted(rng.sample(scored(problem, rng), 2), key=lambda answer: -answer[1])
        yield {"prompt": problem.messages[0]["content"], "chosen": better[0], "rejected": worse[0]}


def scored(problem: Problem, rng: random.Random) -> list[tuple[str, int]]:
    """An answer of each kind, with its score."""
    right = problem.response or ""
    bare_ones = [(f"#### {problem.reference}", RIGHT), (bare_and_wrong(right, rng), 0)]
    return [(right, STEPS + RIGHT), (with_a_slip(right, rng), STEPS), *bare_ones]


def _judgment(problem: Problem, answer: str, score: int) -> Row:
    asked = Question(Sample(problem.id, 0, answer, [], "stop", "", 0, ""), None, 0)
    reasoning = f"{problem.response} {difference(problem, answer)}"
    reply = json.dumps({"reasoning": reasoning, "score": score}, separators=(",", ":"))  # as the engine decodes it
    return row(messages("pointwise", problem, asked, False, RUBRIC), reply)


def difference(problem: Problem, answer: str) -> str:
    """By how much an answer's result differs from the right one, as a step."""
    less, more = sorted((int(str(problem.reference)), int(answer.rsplit(maxsplit=1)[-1])))
    return f"{more}-{less}={more - less}"


def row(prompt: list[dict[str, str]], answer: str | None) -> Row:
    return {"messages": [*prompt, {"role": "assistant", "content": answer}]}


def shown_problems(seed: int) -> list[Problem]:
    return [problem for problem in worked_problems(seed) if problem.split == "demonstration"]


def lines(rows: Iterator[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
