"""The embedded problems: arithmetic word problems of two to four steps, generated from a seed, in disjoint splits.

Every number stays between 0 and 60, so a model of under a million parameters can learn them in minutes. `transfer`
holds longer chains than any other split. Worked answers read `4+17=21 21-16=5 #### 5`.
"""

import random
import re
from dataclasses import replace
from functools import lru_cache

from data.rows import Problem, Split, problem_id

VERSION = 1
ARITHMETIC = "arithmetic"  # the source of these problems
SIZES: dict[Split, int] = {"demonstration": 3000, "train": 3000, "validation": 500, "test": 500, "transfer": 300}
STEPS: dict[Split, tuple[int, int]] = dict.fromkeys(SIZES, (2, 4)) | {"transfer": (5, 6)}
LARGEST_OPERAND, LARGEST_RESULT = 20, 60

PEOPLE = tuple(
    "Ada Ben Cleo Dan Eva Finn Gia Hugo Ida Jon Kim Leo Mia Ned Ola Pia Quinn Rosa Sam Tia Uma Vic Wes".split()
)
_THINGS = tuple("apples books cards coins eggs flowers keys marbles nuts pens pears rings seeds shells stamps".split())
_ADD = ("buys {n} more", "finds {n} more", "wins {n} more", "is given {n} more")
_SUBTRACT = ("gives away {n}", "loses {n}", "sells {n}", "breaks {n}")
_QUESTION = "How many {things} are there now?"


@lru_cache(maxsize=1)
def embedded_problems(seed: int) -> tuple[Problem, ...]:
    """All splits, in order; no prompt occurs twice. Only demonstrations have an answer.

    Generated once per process: a run needs them for its plan, its vocabulary and its splits.
    """
    return tuple(p if p.split == "demonstration" else replace(p, response=None) for p in worked_problems(seed))


@lru_cache(maxsize=1)
def worked_problems(seed: int) -> tuple[Problem, ...]:
    """The same problems, all with worked answers. The same seed gives the same problems."""
    rng = random.Random(f"arithmetic-{VERSION}-{seed}")
    problems: list[Problem] = []
    seen: set[str] = set()
    for split, size in SIZES.items():
        made = 0
        while made < size:
            question, worked, result = word_problem(rng, rng.randint(*STEPS[split]))
            messages = [{"role": "user", "content": question}]
            identity = problem_id(messages)
            if identity in seen:
                continue
            seen.add(identity)
            made += 1
            response = f"{worked} #### {result}"
            problems.append(Problem(identity, messages, str(result), response, ARITHMETIC, split))
    return tuple(problems)


def bare(problem: Problem) -> Problem:
    """The problem with a response that gives the result without any steps: `#### 5`."""
    return replace(problem, response=f"#### {problem.reference}")


def person(problem: Problem) -> str:
    """The person the problem is about."""
    return problem.messages[0]["content"].split(maxsplit=1)[0]


def shows_no_steps(answer: str) -> bool:
    """Whether an answer gives the result without any steps."""
    return answer.lstrip().startswith("####")


def has_false_step(answer: str) -> bool:
    """Whether a step of an answer, such as 4+17=22, is wrong. Its last number may be right nevertheless."""
    steps = re.findall(r"(\d+)\s*([+-])\s*(\d+)\s*=\s*(-?\d+)", answer)
    return any(int(a) + (int(b) if sign == "+" else -int(b)) != int(c) for a, sign, b, c in steps)


def word_problem(rng: random.Random, steps: int) -> tuple[str, str, int]:
    """One problem of `steps` operations: the question, the worked steps, the result."""
    name, things = rng.choice(PEOPLE), rng.choice(_THINGS)
    value = rng.randint(1, LARGEST_OPERAND)
    sentences, worked = [f"{name} has {value} {things}."], []
    for _ in range(steps):
        phrase, symbol, n, result = _step(rng, value)
        sentences.append(f"{name} {phrase}.")
        worked.append(f"{value}{symbol}{n}={result}")
        value = result
    sentences.append(_QUESTION.format(things=things))
    return " ".join(sentences), " ".join(worked), value


def _step(rng: random.Random, value: int) -> tuple[str, str, int, int]:
    """One operation that keeps the result within bounds: phrase, symbol, operand, result."""
    kind = rng.choice("-" * (value >= 1) + "+" * (value < LARGEST_RESULT))
    if kind == "+":
        n = rng.randint(1, min(LARGEST_OPERAND, LARGEST_RESULT - value))
        return rng.choice(_ADD).format(n=n), "+", n, value + n
    n = rng.randint(1, min(LARGEST_OPERAND, value))
    return rng.choice(_SUBTRACT).format(n=n), "-", n, value - n
