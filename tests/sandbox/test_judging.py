"""An honest program gets the verdict of plain Python; a hostile one, and tests that never ask, never get `correct`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from data.sandbox.isolation import Limits
from data.sandbox.judging import Judged, judge_by_output, judge_by_tests
from data.sandbox.values import BROKEN, CANNOT, FAILED, PASSED
from tests.sandbox.judged import ATTACKS, HONEST, JUDGED, SCRIPTS

LIMITS = Limits(memory=512 * 2**20)


def _judge_all(cases: list[Any], judge: Any) -> list[Judged]:
    with ThreadPoolExecutor(4) as four:
        return list(four.map(judge, cases))


def test_programs_with_tests_come_to_what_python_comes_to() -> None:
    judged = _judge_all(JUDGED, lambda case: judge_by_tests(case[0], "", case[1], [], LIMITS))
    assert [(case, found) for case, found in zip(JUDGED, judged, strict=True) if found.outcome != case[2]] == []
    assert {outcome for *_, outcome in JUDGED} == {PASSED, FAILED, CANNOT, BROKEN}


def test_outcomes_of_the_table_are_those_of_plain_python() -> None:
    """The table itself: as one program each that passes does, and each that fails does not."""
    wrong = []
    for code, tests, outcome in JUDGED:
        if outcome in (PASSED, FAILED) and not any(word in code + tests for word in NOT_PLAIN):
            wrong += [(code, tests)] if _plainly(code, tests) != (outcome == PASSED) else []
    assert wrong == []


# Collected or run by others, or in the hands of the program: plain Python would not say, or say otherwise.
NOT_PLAIN = ("def test_", "unittest", "pytest", "os._exit", "isclose", "def all", "gi_frame", "__globals__", "input")
NOT_PLAIN += ("both=[]", "asyncio", "tempfile")


def _plainly(code: str, tests: str) -> bool:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<program>", "exec"), namespace)
        exec(compile(tests, "<tests>", "exec"), namespace)
    except BaseException:
        return False
    return True


def test_programs_that_attack_tests_do_not_pass() -> None:
    judged = _judge_all(ATTACKS, lambda case: judge_by_tests(case[0], "", case[1], [], LIMITS))
    assert [(case, found) for case, found in zip(ATTACKS, judged, strict=True) if found.outcome not in NO_PASS] == []
    assert len(ATTACKS) > 12


NO_PASS = (FAILED, CANNOT)


def test_right_scripts_are_right() -> None:
    judged = _judge_all(SCRIPTS, lambda case: judge_by_output(case[0], [(case[1], case[2])], LIMITS))
    assert [(case, found) for case, found in zip(SCRIPTS, judged, strict=True) if found.outcome != PASSED] == []
    long = "x " * 600_000
    assert judge_by_output("print('x ' * 600000)", [("", long)], LIMITS).outcome == PASSED


def test_what_honest_programs_do_is_judged_as_right() -> None:
    def judge(row: dict[str, Any]) -> Judged:
        if row["kind"] == "script":
            return judge_by_output(row["program"], [tuple(case) for case in row["cases"]], LIMITS)
        return judge_by_tests(row["program"], "", row["tests"], [], LIMITS)

    judged = _judge_all(HONEST, judge)
    assert [(row["name"], found) for row, found in zip(HONEST, judged, strict=True) if found.outcome != PASSED] == []


def test_cases_that_are_slow_together_are_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.sandbox.judging.START_SECONDS", -7.0)  # so all four have 2 s, and each alone 15
    code = "import time\ntime.sleep(0.8)\nprint(1)"
    judged = judge_by_output(code, [("", "1")] * 4, Limits(seconds=15.0))
    assert judged.outcome == "timeout" and "with all before it took longer than 15 s" in judged.why


BODIES = """
return x | return x[::-1] | x.sort() | x.append(9); return x | return iter(x) | return map(abs, x)
return set(x) | return (i + 1 for i in x) | return dict(enumerate(x)) | return dict(enumerate(x)).keys()
return {1: x}.values() | return dict(enumerate(x)).items() | return deque(x, 3) | return Counter(x)
return Point(*x[:2]) | return Pair(*x[:2]) | return tuple(x) | return range(len(x)) | return sum(x)
return sum(x) / 3 | return str(x) | return None | return Stack(x) | raise ValueError(x) | return {}[x[0]]
return lambda: x | return Decimal(sum(x)) | return Fraction(sum(x), 3) | return [x, x] | return {'a': x, 1: [x]}
return bytearray(b'ab') | return frozenset(x) | return Color(1) | x.clear() | return zip(x, x)
return defaultdict(int, {1: 2}) | return OrderedDict(a=1) | return Own(x) | return x and x[0] > 1
x[:] = [0]; raise KeyError('k') | return 2 ** (9 * sum(map(abs, x))) | return float('nan') | return slice(1, 2)
""".replace("\n", " | ").split(" | ")[1:-1]
TESTS = """
f(a) == e | f(a) != e | list(f(a)) == list(e) | len(f(a)) == len(e) | bool(f(a)) | e[0] in f(a)
f(a)[0] == e[0] | sorted(f(a)) == sorted(e) | isinstance(f(a), type(e)) | (f(a), a)[1] == e | f(a) is a
str(f(a)) == str(e) | f(a) == f(a) | [*f(a)] == e | f(a)() == e | f(a).a == e[0] | e == f(a) | f(a) in [e]
next(f(a)) == e[0] | max(f(a)) == max(e) | hash(f(a)) == hash(e) | f(a) + f(a) == e + e | f(a) < e
f(a)[0:2] == e[0:2] | f(a) == tuple(e) | sum(f(a)) == sum(e) | f(a) == set(e) | f(a) == Point(*e[:2])
f(a) == Pair(*e[:2]) | f(a) == Color.RED | f(a) == dict(enumerate(e)) | len([*f(a), *f(a)]) == 2 * len(e)
callable(f(a)) | hasattr(f(a), 'append') | dict(f(a)) == dict(enumerate(e))
""".replace("\n", " | ").split(" | ")[1:-1]
PRELUDE = """
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction

Pair = namedtuple("Pair", "a b", defaults=(0, 0))
Color = Enum("Color", {"RED": 1, "BLUE": 2})

@dataclass
class Point:
    a: int = 0
    b: int = 0

class Stack:
    def __init__(self, x): self.a = x
    def __len__(self): return len(self.a)
    def __iter__(self): return iter(self.a)
    def __getitem__(self, i): return self.a[i]

class Own(list):
    pass
"""
NUMBERS = st.lists(st.integers(-3, 3), max_size=4)
CASES = st.lists(st.tuples(st.sampled_from(BODIES), st.sampled_from(TESTS), NUMBERS, NUMBERS), min_size=80, max_size=80)


@settings(
    phases=[Phase.generate], max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(CASES)
def test_generated_programs_come_to_what_plain_python_comes_to(cases: list[tuple[str, str, Any, Any]]) -> None:
    functions = [f"def f{n}(x): {body}" for n, (body, *_) in enumerate(cases)]
    asked = [
        f"say(lambda a, e: {test.replace('f(a)', f'f{n}(a)')}, {given!r}, {given if n % 2 else other!r})"
        for n, (_, test, given, other) in enumerate(cases)
    ]
    code = "\n".join([PRELUDE, *functions])
    tests = "\n".join([SAY, *asked, "raise ValueError(''.join(said))"])
    try:
        namespace: dict[str, Any] = {"__name__": "plain"}
        exec(code, namespace)
        exec(tests, namespace)
    except ValueError as error:
        plain = str(error)
    judged = judge_by_tests(code, "", tests, [], LIMITS).why.removeprefix("ValueError: ")
    assert len(judged) == len(plain), judged
    assert [(*case, p, j) for case, p, j in zip(cases, plain, judged, strict=True) if p != j] == []


SAY = """
said = []
def say(ask, a, e):
    try:
        said.append("TF"[not ask(a, e)])
    except Exception as error:
        said.append(type(error).__name__[0].lower())
"""
