"""The benchmarks can be started and listed, and the mistakes that graders are tried with are mistakes."""

import json
import sys
from importlib import import_module

import pytest

from benchmarks.__main__ import BY_NAME, NAMES, main
from benchmarks.graders import changed_numbers, changed_program, mutants
from data.formats import Record


@pytest.mark.parametrize("name", [*NAMES, *BY_NAME])
def test_every_benchmark_can_be_started(name: str) -> None:
    assert callable(import_module(f"benchmarks.{name}").main)


def test_help_lists_every_benchmark_and_runs_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    for name in (*NAMES, *BY_NAME):
        about = (import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
        assert f"  {name:<12} {about}" in lines


def test_an_unknown_benchmark_is_refused_before_one_is_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "graders", "nonsense"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "there is no benchmark 'nonsense'; choose from graders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gold", "others"),
    [("#### 1,200", ["1201", "-1200", "12000"]), ("#### 0", ["1", "-1", "10"]), ("#### 1/2", ["3/2", "-1/2", "5"])],
)
def test_another_number_sign_and_scale_are_other_answers(gold: str, others: list[str]) -> None:
    changed = [answer for _, answer in changed_numbers(Record([], reference=f"So it is.\n{gold}"))]
    assert changed == [f"So it is.\n#### {other}" for other in others]


def test_mistakes_are_only_put_into_numbers() -> None:
    with pytest.raises(ValueError, match="not into the answer 'x'"):
        list(changed_numbers(Record([], reference="#### x")))


PROMPT = "def twice(x):\n    return x * 2\n\ndef f(x):\n"
BODY = "    y = twice(x)\n    return y + 1\n"


def test_a_mistake_is_put_into_the_answer_and_not_into_the_problem() -> None:
    found = list(mutants(PROMPT + BODY, PROMPT.count("\n")))
    assert all("return x * 2" in code for code in found)
    assert [code.splitlines()[-1].strip() for code in found] == ["return None", "return y - 1", "return y + 2"]


def test_a_mistake_makes_a_program_fail_its_tests() -> None:
    task = {
        "kind": "humaneval",
        "prompt": PROMPT,
        "entry_point": "f",
        "test": "def check(f):\n    assert f(0) in (1, -1)",
    }
    ((kind, code),) = changed_program(Record([], BODY, reference=json.dumps(task)))
    assert kind == "with a fault" and "return None" in code
    task["test"] = "def check(f):\n    pass"
    with pytest.raises(ValueError, match="No change makes this program fail"):
        list(changed_program(Record([], BODY, reference=json.dumps(task))))
