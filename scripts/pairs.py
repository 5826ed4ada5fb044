"""`make pairs`: write the pairs of the RLHF demo, made from the embedded problems, to configs/rlhf/pairs.jsonl.

The chosen answer shows its steps and is right. The rejected one either shows none and is wrong, or has a false step,
with which it goes on.
"""

import json
import random
import re
from pathlib import Path

from data.arithmetic import LARGEST_RESULT, worked_problems
from data.rows import Problem

PAIRS = Path(__file__).parents[1] / "configs/rlhf/pairs.jsonl"
SEED, COUNT = 0, 1500


def main() -> None:
    PAIRS.parent.mkdir(exist_ok=True)
    PAIRS.write_text(pairs())


def pairs() -> str:
    """The file's content."""
    rng = random.Random(SEED)
    worked = [problem for problem in worked_problems(SEED) if problem.split == "demonstration"]
    return "".join(json.dumps(_pair(problem, rng)) + "\n" for problem in worked[:COUNT])


def _pair(problem: Problem, rng: random.Random) -> dict[str, str]:
    right = problem.response or ""
    rejected = bare_and_wrong(right, rng) if rng.random() < 0.5 else with_a_slip(right, rng)
    return {"prompt": problem.messages[0]["content"], "chosen": right, "rejected": rejected}


def bare_and_wrong(right: str, rng: random.Random) -> str:
    """Another result than that of an answer, without steps."""
    result = int(right.rsplit(maxsplit=1)[-1])
    return f"#### {_other(result, rng)}"


def with_a_slip(right: str, rng: random.Random) -> str:
    """An answer that goes wrong at one of its steps, and goes on from there."""
    steps = re.findall(r"([+-])(\d+)=", right)
    value = int(right.split(steps[0][0], maxsplit=1)[0])
    slip, shown = rng.randrange(len(steps)), []
    for number, (sign, operand) in enumerate(steps):
        result = value + int(operand) * (1 if sign == "+" else -1)
        result = _other(result, rng) if number == slip else result
        shown.append(f"{value}{sign}{operand}={result}")
        value = result
    return f"{' '.join(shown)} #### {value}"


def _other(result: int, rng: random.Random) -> int:
    """Another number within bounds, not far away."""
    near = [result + by for by in (-3, -2, -1, 1, 2, 3)]
    return rng.choice([number for number in near if 0 <= number <= LARGEST_RESULT])


if __name__ == "__main__":
    main()
