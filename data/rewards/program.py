"""The reward `program`: 1 if a completion's program passes the problem's tests, else 0. It is run shut in.

The problem's reference names its kind, as the formats of data sets write it: `apps` (APPS, Hendrycks et al. 2021,
arXiv 2105.09938: standard input and output, or calls of a function), `humaneval` (Chen et al. 2021, arXiv 2107.03374),
`mbpp` (Austin et al. 2021, arXiv 2108.07732). No test and no expected result is ever in the process of the candidate.
"""

import json
import re
from typing import Any

from data.rewards.loading import RewardError
from data.rows import Problem, Score
from data.sandbox.isolation import IsolationError, Level, Limits, require
from data.sandbox.judging import TIMEOUT, Judged, judge_by_output, judge_by_tests
from data.sandbox.probes import contained
from data.sandbox.values import BROKEN, PASSED

LIMITS = Limits()
_FENCED = re.compile(r"```[ \t]*([A-Za-z0-9+]*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
# APPS has its results as JSON, which knows no tuples, and wraps most of them in a list of one.
_SAME = """
def _plain(value):
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value

def _same(found, wanted):
    return _plain(found) == wanted or [_plain(found)] == wanted
"""


def program(problem: Problem, completion: str) -> Score:
    """Run the program in `completion` against the tests in `problem.reference`.

    A program that takes too long gets `timeout`; one that cannot be judged, because its tests are broken or the sandbox
    fails, `error`. The explanation says how it was shut in.
    """
    task = _task(problem.reference)
    if task is None:
        return Score(None, "error", f"problem {problem.id} has no tests that can be run")
    code = extract_program(completion, task)
    try:
        level = contained().level
        judged = _judge(code, task)
    except IsolationError as error:
        return Score(None, "error", str(error))
    explanation = f"{judged.why or 'it passes all tests'} ({level})"
    if judged.outcome == TIMEOUT:
        return Score(None, "timeout", explanation)
    if judged.outcome == BROKEN:
        return Score(None, "error", f"problem {problem.id}: its tests are broken: {explanation}")
    correct = judged.outcome == PASSED
    return Score(float(correct), "correct" if correct else "wrong", explanation)


def can_run(reference: str | None) -> bool:
    """Whether a problem with this reference has tests that can be run."""
    return _task(reference) is not None


def require_isolation(level: Level) -> None:
    """See that programs are shut in here, at the least at this level.

    Raises:
        RewardError: they cannot be; with what to do.
    """
    require(level)
    try:
        contained()
    except IsolationError as error:
        raise RewardError(f"The reward 'program' cannot be used: {error.what}", error.why, error.what_next) from None


program.version = 1  # type: ignore[attr-defined]
program.reads = "programs"  # type: ignore[attr-defined]
program.can_grade = can_run  # type: ignore[attr-defined]
program.isolate = require_isolation  # type: ignore[attr-defined]


def extract_program(completion: str, task: dict[str, Any]) -> str:
    """The program that a completion gives: its last fenced block of Python, or all of it.

    HumanEval's answers go on where the prompt stops, unless they define the function themselves.
    """
    blocks = [
        code for language, code in _FENCED.findall(completion) if language.lower() in ("", "python", "py", "python3")
    ]
    code = blocks[-1] if blocks else completion
    if task["kind"] != "humaneval" or re.search(rf"^def {re.escape(task['entry_point'])}\b", code, re.MULTILINE):
        return code
    return str(task["prompt"]) + code


def _task(reference: str | None) -> dict[str, Any] | None:
    try:
        task = json.loads(reference or "")
    except ValueError:
        return None
    return task if isinstance(task, dict) and task.get("kind") in ("apps", "humaneval", "mbpp") else None


def _judge(code: str, task: dict[str, Any]) -> Judged:
    if task["kind"] == "humaneval":
        name = task["entry_point"]
        return judge_by_tests(code, task["prompt"], f"{task['test']}\ncheck({name})\n", [name], LIMITS)
    if task["kind"] == "mbpp":
        return judge_by_tests(code, "", "\n".join([task["setup"], *task["asserts"]]), [], LIMITS)
    cases = list(zip(task["inputs"], task["outputs"], strict=True))
    if "fn_name" not in task:
        return judge_by_output(code, [(_lines(given), _lines(wanted)) for given, wanted in cases], LIMITS)
    name = task["fn_name"]
    called = f"Solution().{name}" if re.search(r"^class Solution\b", code, re.MULTILINE) else name
    tests = "\n".join(f"assert _same({called}(*{given!r}), {wanted!r})" for given, wanted in cases)
    return judge_by_tests(code, _SAME, tests, [], LIMITS)


def _lines(text: Any) -> str:
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)
