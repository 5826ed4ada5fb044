"""The reward `program`: 1 if a completion's program passes the problem's tests, else 0. It runs in a sandbox.

The problem's reference names its kind, as the data set formats write it: `apps` (APPS, Hendrycks et al. 2021,
arXiv 2105.09938: standard input and output, or calls of a function), `humaneval` (Chen et al. 2021, arXiv 2107.03374),
`mbpp` (Austin et al. 2021, arXiv 2108.07732). Tests and expected results are never in the candidate's process.
"""

import ast
import json
import re
from typing import Any

from data.rewards.extraction import extract_program
from data.rewards.loading import RewardError
from data.rows import BY_THE_ANSWER, Problem, Score
from data.sandbox.isolation import IsolationError, Level, Limits, require
from data.sandbox.judging import TIMEOUT, TOLERANCE, Judged, judge_by_output, judge_by_tests
from data.sandbox.naming import LIBRARY, defined, naming
from data.sandbox.probes import contained
from data.sandbox.values import BROKEN, CANNOT, PASSED

LIMITS = Limits()
# Modules that the harnesses of APPS and LeetCode import for every program: their starter code relies on it.
SUPPLIED = {
    *("bisect", "collections", "copy", "datetime", "fractions", "functools", "heapq", "itertools", "json", "math"),
    *("operator", "os", "random", "re", "string", "sys", "time", "typing"),
}
# A name of its own, since the function that tests call may have any other.
_CALLS = "import stored as __stored__"


def program(problem: Problem, completion: str) -> Score:
    """Run the program in `completion` against the tests in `problem.reference`.

    The verdict is that of Python running program and tests as one file, except for what a program could decide about
    itself. A program that takes too long gets `timeout`; one that cannot be judged gets `error`: its tests are broken,
    never call it, or would have to trust it, or the sandbox fails. The explanation names the sandbox's level.
    """
    task = _task(problem.reference)
    if task is None:
        return Score(None, "error", f"problem {problem.id} has no tests that can be run")
    try:
        level = contained().level
        judged = _judge(completion, task)
    except IsolationError as error:
        return Score(None, "error", str(error))
    explanation = f"{judged.why or 'it passes all tests'} ({level})"
    if judged.outcome == TIMEOUT:
        return Score(None, "timeout", explanation)
    if judged.outcome == CANNOT:
        return Score(None, "error", f"{BY_THE_ANSWER}{explanation}")
    if judged.outcome == BROKEN:
        return Score(None, "error", f"problem {problem.id}: its tests are broken: {explanation}")
    correct = judged.outcome == PASSED
    return Score(float(correct), "correct" if correct else "wrong", explanation)


def can_run(reference: str | None) -> bool:
    """Whether a problem with this reference has runnable tests."""
    return _task(reference) is not None


def require_isolation(level: Level) -> None:
    """Check that programs can be sandboxed here, at this level or a higher one.

    Raises:
        RewardError: they cannot; the message says what to do.
    """
    require(level)
    try:
        contained()
    except IsolationError as error:
        raise RewardError(f"The reward 'program' cannot be used: {error.what}", error.why, error.what_next) from None


program.version = 3  # type: ignore[attr-defined]
program.reads = "programs"  # type: ignore[attr-defined]
program.can_grade = can_run  # type: ignore[attr-defined]
program.isolate = require_isolation  # type: ignore[attr-defined]


def _task(reference: str | None) -> dict[str, Any] | None:
    try:
        task = json.loads(reference or "")
    except ValueError:
        return None
    return task if isinstance(task, dict) and task.get("kind") in ("apps", "humaneval", "mbpp") else None


def _judge(completion: str, task: dict[str, Any]) -> Judged:
    if task["kind"] == "humaneval":
        return _judge_human_eval(completion, task)
    if task["kind"] == "mbpp":
        tests, setup = "\n".join(task["asserts"]), task["setup"]
        imports = _imports(setup)
        if (found := defined(setup)) and found.lacks:  # it uses what the program defines
            tests, setup = f"{setup}\n{tests}", ""
        code = extract_program(completion, naming(setup, tests, []).names)
        supplied = _supplied(code) if _has_solution(code) else ""
        return judge_by_tests(code, setup, tests, [], LIMITS, "\n".join((imports, supplied)))
    if "fn_name" in task:
        return _judge_calls(completion, task)
    code = extract_program(completion)
    cases = [(_lines(given), _lines(wanted)) for given, wanted in zip(task["inputs"], task["outputs"], strict=True)]
    return judge_by_output(code, cases, LIMITS, _supplied(code))


def _judge_human_eval(completion: str, task: dict[str, Any]) -> Judged:
    """The answer continues where the prompt stops, unless it defines the function itself."""
    name, tests = task["entry_point"], task["test"]
    found = defined(tests)
    if found and "check" not in found.names:
        return Judged(BROKEN, "they do not define a function 'check'")
    code, prompt = extract_program(completion, [name]), task["prompt"]
    whole = prompt if defined(prompt) else f"{prompt.rstrip()}\n    pass\n"  # a function without a docstring
    if not re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE):
        code = prompt + code
    return judge_by_tests(code, whole, f"{tests}\ncheck({name})\n", [name], LIMITS, whole)


def _judge_calls(completion: str, task: dict[str, Any]) -> Judged:
    name = task["fn_name"]
    if not (isinstance(name, str) and name.isidentifier()):
        return Judged(BROKEN, f"{name!r} is not a function name")
    code = extract_program(completion, [name, "Solution"])
    called, required = (f"Solution().{name}", "Solution") if _is_method(name, code) else (name, name)
    cases = json.dumps(list(zip(task["inputs"], task["outputs"], strict=True)))
    tests = f"__stored__.check(lambda: {called}, {cases!r}, {TOLERANCE})"
    return judge_by_tests(code, _CALLS, tests, [required], LIMITS, _supplied(code))


def _is_method(name: str, code: str) -> bool:
    return _has_solution(code) and re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE) is None


def _has_solution(code: str) -> bool:
    """Whether a program is a class, as on LeetCode."""
    return re.search(r"^class Solution\b", code, re.MULTILINE) is not None


def _supplied(code: str) -> str:
    """Imports that a program lacks and that its task's harness supplies."""
    found = defined(code)
    lacks = sorted(found.lacks) if found else []
    modules = [f"import {name}" for name in lacks if name in SUPPLIED]
    return "\n".join([*modules, *(f"from {LIBRARY[name]} import {name}" for name in lacks if name in LIBRARY)])


def _imports(setup: str) -> str:
    """The imports of a setup, which the program may rely on. It gets nothing else: a setup can hold an answer."""
    try:
        body = ast.parse(setup).body
    except (SyntaxError, ValueError):
        return ""
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom))


def _lines(text: Any) -> str:
    return "\n".join(map(str, text)) if isinstance(text, list) else str(text)
