"""The reward `program`: which program of an answer counts, what its tests need, and the verdict."""

import json
from concurrent.futures import ThreadPoolExecutor
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


SUMS = task(kind="apps", inputs=["1 2\n"], outputs=["3\n"])
ADDED = task(kind="mbpp", setup="", asserts=["assert add(1, 2) == 3"])
SCRIPT = "print(sum(map(int, input().split())))"


def called(name: str, inputs: list[Any], outputs: list[Any]) -> Problem:
    return task(kind="apps", fn_name=name, inputs=inputs, outputs=outputs)


WRITTEN: list[tuple[Problem, str, str]] = [
    (SUMS, f"```python\n{SCRIPT}\n```\nExample:\n```\n1 2\n```\nOutput:\n```\n3\n```", "correct"),
    (SUMS, f"```python\n{SCRIPT}\n```\nRun it:\n```bash\n$ python main.py\n```", "correct"),
    (SUMS, f"```\n{SCRIPT}\n```\n\n```\n3\n```", "correct"),
    (SUMS, f"~~~python\n{SCRIPT}\n~~~", "correct"),
    (SUMS, f"1. Do:\n\n   ```python\n   {SCRIPT}\n   ```\n", "correct"),
    (SUMS, f"````python\n{SCRIPT}\n````", "correct"),
    (
        SUMS,
        "```python\ndef solve(a,b): return a+b\nprint(solve(*map(int,input().split())))\n```\n"
        "Use:\n```python\nprint(solve(1, 2))\n```",
        "correct",
    ),
    (
        SUMS,
        "```python\ndef solve(a,b):\n    return a+b\n```\nThen:\n```python\n"
        "print(solve(*map(int,input().split())))\n```",
        "correct",
    ),
    (ADDED, f"```python\n{FUNCTION}```\nUsage:\n```python\nprint(add(1, 2))\n```", "correct"),
    (ADDED, f"```python\n{FUNCTION}```\n```python\nassert add(1, 2) == 3\n```", "correct"),
    (
        ADDED,
        '```python\ndef add(a, b):\n    """Adds.\n\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n```',
        "correct",
    ),
    (
        ADDED,
        '```python\ndef add(a, b):\n    """Adds.\n```\nadd(1, 2)\n```\n    """\n    return a + b\n```\nDone.',
        "correct",
    ),
    (ADDED, f"{FUNCTION}", "correct"),
    (ADDED, f"```\n{FUNCTION}```\n", "correct"),
    (ADDED, f"First try:\n```python\ndef add(a,b): return a-b\n```\nBetter:\n```python\n{FUNCTION}```", "correct"),
    (ADDED, "- item\n    ~~~py\n    def add(a, b):\n        return a + b\n    ~~~\n", "correct"),
    (ADDED, f"```python\n{FUNCTION}", "correct"),
    (ADDED, f"```Python\n{FUNCTION}```", "correct"),
    (ADDED, "```python\r\ndef add(a, b):\r\n    return a + b\r\n```", "correct"),
    (called("f", [[1]], [0.3]), "def f(x): return 0.1+0.2", "correct"),
    (called("f", [[1]], [{"1": 2}]), "def f(x): return {1:2}", "correct"),
    (called("f", [[1]], [float("inf")]), "def f(x): return float('inf')", "correct"),
    (called("f", [[1]], [[[1, 2]]]), "def f(x): return [(1,2)]", "correct"),
    (called("f", [[{"1": 5}]], [5]), "def f(d): return d[1]", "correct"),
    (
        called("f", [[[1, 2]]], [3]),
        "class Solution:\n    def f(self, a: List[int]) -> int:\n        return math.floor(sum(a))",
        "correct",
    ),
    (called("sum | round", [[1]], [1]), "pass", "error"),
    (called("sum", [[[1, 2]]], [3]), "pass", "wrong"),
    (called("sum", [[[1, 2]]], [3]), "def sum(a):\n    t=0\n    for x in a: t+=x\n    return t", "correct"),
    (called("f", [[1]], [1]), "class Solution:\n    pass\n\ndef f(x):\n    return x", "correct"),
    (called("json", [[3]], [3]), "def json(x): return x", "correct"),
    (called("all", [[1]], [[3]]), "def all(*a): return True", "wrong"),
    (called("_same", [[1]], [0]), "def _same(*a): return True", "wrong"),
    (called("f", [[3]], [3]), "def f(x): return 3.0000001", "correct"),
    (called("f", [[3]], [True]), "def f(x): return 'True'", "wrong"),
    (task(kind="mbpp", setup="def add(a,b): return a+b", asserts=["assert add(1,2)==3"]), "pass", "error"),
    (
        task(kind="mbpp", setup="import math", asserts=["assert f(4)==math.sqrt(4)"]),
        "def f(x): return math.sqrt(x)",
        "correct",
    ),
    (
        task(kind="humaneval", prompt="def f(x):\n", entry_point="f", test="assert True"),
        "def check(f): pass\ndef f(x): return 1",
        "error",
    ),
    (
        task(
            kind="humaneval",
            prompt="def f(x):\n    '''doc'''\n",
            entry_point="f",
            test="def check(candidate):\n    assert candidate(1)==1",
        ),
        "    return x",
        "correct",
    ),
    (task(kind="mbpp", setup="LIMIT = 3", asserts=["assert f(2)"]), "def f(x):\n    return x < LIMIT", "error"),
    (
        task(
            kind="humaneval",
            prompt="from typing import List\n\ndef one(x):\n    return x[0]\n\ndef f(x: List[int]) -> int:\n",
            entry_point="f",
            test="def check(candidate):\n    assert candidate([1])==one([1])",
        ),
        "```python\ndef f(x: List[int]) -> int:\n    return one(x)\n```",
        "correct",
    ),
    (
        task(kind="mbpp", setup="root = Node(1)\nroot.left = Node(2)", asserts=["assert height(root)==2"]),
        "class Node:\n    def __init__(self, data):\n        self.data, self.left = data, None\n\n"
        "def height(node):\n    return 1 + height(node.left) if node else 0",
        "correct",
    ),
    (SUMS, "import sys\nprint(sum(int(x) for x in sys.stdin.read().split()))\nsys.exit(0)", "correct"),
    (task(kind="apps", inputs=["a"], outputs=["1"]), "print(len(Counter(input())))", "correct"),
]


def test_answers_as_they_are_written_and_data_as_it_comes() -> None:
    with ThreadPoolExecutor(4) as four:
        scores = list(four.map(lambda case: program(case[0], case[1]), WRITTEN))
    found = [(case, score.explanation) for case, score in zip(WRITTEN, scores, strict=True) if score.verdict != case[2]]
    assert found == []
