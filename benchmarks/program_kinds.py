"""The reward for programs by kind: correct ones, hostile ones, and tests that prove nothing."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.measure import show
from data.sandbox.isolation import Limits
from data.sandbox.judging import Judged, judge_by_output, judge_by_tests
from data.sandbox.values import FAILED
from tests.sandbox.hostile import HOSTILE
from tests.sandbox.judged import HONEST, JUDGED, SCRIPTS

LIMITS, HASTE = Limits(), Limits(seconds=3.0)
TESTS = "assert double(2) == 4\nassert double(5) == 10\n"
AT_A_TIME = 4  # most hostile programs wait for their timeout


def show_program_kinds() -> None:
    """Print the outcomes of the tests' programs by kind."""
    scripts = [row for row in HONEST if row["kind"] == "script"]
    functions = [row for row in HONEST if row["kind"] == "function"]
    rows = [
        _row("honest scripts", scripts, _script),
        _row("honest scripts that use the system", SCRIPTS, lambda s: judge_by_output(s[0], [s[1:]], LIMITS)),
        _row("honest functions", functions, lambda row: judge_by_tests(row["program"], "", row["tests"], [], LIMITS)),
    ]
    names = {
        "passed": "tests that plain Python passes",
        "failed": "tests that plain Python fails",
        "cannot": "tests that would have to trust the program, or share with it",
        "broken": "tests that never call the program",
    }
    for outcome, name in names.items():
        cases = [case for case in JUDGED if case[2] == outcome]
        rows.append(_row(name, cases, lambda case: judge_by_tests(case[0], "", case[1], [], LIMITS)))
    hostile = [*HOSTILE.values()]
    rows += [
        _row("hostile, as functions", hostile, lambda code: judge_by_tests(code, "", TESTS, [], HASTE)),
        _row("hostile, as scripts", hostile, lambda code: judge_by_output(code, [("2", "4")], HASTE)),
    ]
    show("Programs by kind", ["kind", "number", *OUTCOMES], rows)


OUTCOMES = ("passed", FAILED, "timeout", "cannot", "broken")


def _script(row: dict[str, Any]) -> Judged:
    return judge_by_output(row["program"], [(given, wanted) for given, wanted in row["cases"]], LIMITS)


def _row(kind: str, cases: Sequence[Any], judge: Callable[[Any], Judged]) -> list[str]:
    with ThreadPoolExecutor(AT_A_TIME) as threads:
        found = Counter(judged.outcome for judged in threads.map(judge, cases))
    return [kind, f"{len(cases):,}", *(f"{found[outcome]:,}" for outcome in OUTCOMES)]
