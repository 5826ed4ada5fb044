"""The reward `program`: which program of an answer counts, what its tests need, and the verdict."""

import json
from typing import Any

import pytest

from data.rewards.program import program
from data.rows import Problem
from data.sandbox.isolation import Limits

LIMITS = Limits(memory=256 * 2**20)
HASTE = Limits(memory=256 * 2**20, seconds=1.0)


def task(**fields: Any) -> Problem:
    return Problem("p", [{"role": "user", "content": "?"}], json.dumps(fields), None, "", "")


APPS = task(kind="apps", inputs=["1 2\n", "3 4\n"], outputs=["3\n", "7\n"])
CALLED = task(kind="apps", fn_name="add", inputs=[[1, 2], [3, 4]], outputs=[3, [7]])
HUMAN_EVAL = task(
    kind="humaneval",
    prompt='def helper(x):\n    return x\n\n\ndef add(a, b):\n    """Add."""\n',
    entry_point="add",
    test="def check(candidate):\n    assert candidate(1, helper(2)) == 3\n    assert candidate(-1, 1) == 0\n",
)
MBPP = task(kind="mbpp", setup="", asserts=["assert add(1, 2) == 3", "assert add(2, 2) == 4"])
FUNCTION = "def add(a, b):\n    return a + b\n"


@pytest.mark.parametrize(
    ("problem", "completion", "verdict"),
    [
        (APPS, "print(sum(map(int, input().split())))", "correct"),
        (APPS, "First I read.\n```python\nprint(sum(map(int, input().split())))\n```\nDone.", "correct"),
        (APPS, "print(3)", "wrong"),
        (APPS, "while True: pass", "timeout"),
        (CALLED, FUNCTION, "correct"),
        (CALLED, "class Solution:\n    def add(self, a, b):\n        return a + b", "correct"),
        (CALLED, "def add(a, b):\n    return (3,)", "wrong"),
        (HUMAN_EVAL, "    return a + b\n", "correct"),
        (HUMAN_EVAL, FUNCTION, "correct"),
        (HUMAN_EVAL, "```python\ndef helper(x):\n    return 0\n\ndef add(a, b):\n    return a + b\n```", "correct"),
        (HUMAN_EVAL, "    return 3\n", "wrong"),
        (HUMAN_EVAL, "    return a +\n", "wrong"),
        (MBPP, FUNCTION, "correct"),
        (MBPP, "def add(a, b):\n    return 3", "wrong"),
        (MBPP, "I do not know.", "wrong"),
        (task(kind="mbpp", setup="", asserts=["assert add(1"]), FUNCTION, "error"),
        (task(kind="other"), FUNCTION, "error"),
        (Problem("p", [], "no JSON", None, "", ""), FUNCTION, "error"),
    ],
)
def test_the_reward_gives_the_verdict(
    problem: Problem, completion: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.rewards.program.LIMITS", HASTE if verdict == "timeout" else LIMITS)
    score = program(problem, completion)
    assert score.verdict == verdict, score.explanation
    assert score.value == {"correct": 1.0, "wrong": 0.0}.get(verdict)
    if verdict in ("correct", "wrong"):
        assert "(bubblewrap" in score.explanation
