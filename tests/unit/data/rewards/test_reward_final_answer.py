"""The reward `final_answer`: verdicts, canonical answers, and that failures of the grader are never `wrong`."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import data
from data.rewards import final_answer as module
from data.rewards.final_answer import final_answer
from data.rewards.math_checker import MathChecker, MathCheckError
from data.rows import Problem, Score

MakeProblem = Callable[[str | None], Problem]

# The endings that occur in GSM8K's worked answers, and shapes that could be mistaken.
GSM8K_SHAPED = [
    "She has 5 + 4 = <<5+4=9>>9 pens.\n#### 9",
    "It costs $<<3*0.5=1.5>>1.50, in total $<<1.5+2=3.5>>3.50.\n#### 3.5",
    "The answer is 20 for Ann, but Bob has <<20*2=40>>40.\n#### 40",
    "He earns 1,200 + 34 = $<<1200+34=1234>>1,234.\n#### 1,234",
    "#### 0", "#### 1", "#### 10", "#### 42", "#### 100", "#### 999", "#### 1000", "#### 5600", "#### 70000",
    "#### 1,080", "#### 10,000", "#### 15,620", "#### 109,200,000", "#### 2,520,000", "#### 850,000",
    "#### -7", "#### -12", "#### -3", "#### -47", "#### -1,500",
    "#### 0.5", "#### .25", "#### 2.75", "#### 12.00", "#### 1,234.56", "#### 0.05",
    "#### $18", "#### $1,250", "#### 25%", "#### 3/4", "#### 12 apples",
    "####  18", "#### 18 ", "####18", "#### 18.", "Half is <<1/2=.5>>.5.\n\n#### 2\n", "2 #'s\n#### 2\r\n",
]  # fmt: skip

CORRECT = [
    ("18", "18"), ("18", "$18.00"), ("1,234", "1234.0"), ("-7", "−7"), ("50%", "50"), ("0.5", "1/2"), ("10000", "1e4"),
    (r"\frac{1}{2}", "0.5"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\frac{\pi}{2}", r"$\dfrac{\pi}{2}$"), ("x+1", "1+x"),
    ("x^2-1", "(x-1)(x+1)"), ("[1,2)", "[1, 2)"), ("(1,2)", "(1, 2)"), (r"\{1,2\}", r"\{2,1\}"), ("1,2", "2 or 1"),
    ("-2,1", r"\{1,-2\}"), (r"(3, \frac{\pi}{2})", r"(3,\pi/2)"), ("2^{10}", "1024"), ("120", r"\boxed{5!}"),
    ("3", "x=3"), ("x=3", "3"), ("1 1/2", r"\frac{\sqrt{9}}{2}"), (r"2\sqrt{2}", r"2\sqrt{2}\text{ cm}^2"),
    ("2ab", "2ba"), ("Tuesday", r"\text{tuesday}"), ("B", "(B)"), (r"\text{(B)}", "B"), ("1" * 40, "1" * 40),
]  # fmt: skip

WRONG = [
    ("3", "4"), ("3", "3 or 4"), ("3", "3, 4, 5"), ("3", r"3 \text{ or } 4"), ("4", "3 4"), ("7", "3 4"),
    ("3", r"\pm 3"), ("3", r"$3$ and $4$"), ("3", r"\{3,4\}"), ("1,2", "1"), ("1/3", "0.333333"),
    (r"\pi", "3.14159265"), ("50%", "0.5"),
    ("3", "3x"), ("2ab", "2"), ("3c", "3"), ("3", "3 pm"), ("dog", "god"), ("B", "A"), ("(1,2)", "[1,2]"),
    ("3", "not 3"), ("3", "foo $3$"), ("3", "__import__('os').system('touch taken-over')"),
    ("2x", "2y"), ("3", "1/0"), ("5000000", "5"),
    ("3", "four"), ("Tuesday", "3"),
]  # fmt: skip

UNPARSABLE = ["]]}", r"} \boxed{3", "3???", "9**9**9**9", "9" * 10**6]


@pytest.mark.parametrize("reference", GSM8K_SHAPED)
def test_a_gsm8k_answer_is_correct_against_itself(problem: MakeProblem, reference: str) -> None:
    score = final_answer(problem(reference), reference)
    assert (score.value, score.verdict) == (1.0, "correct")


@pytest.mark.parametrize(("reference", "answer"), CORRECT)
def test_equal_answers_are_correct(problem: MakeProblem, reference: str, answer: str) -> None:
    score = final_answer(problem(reference), f"Hence\n#### {answer}")
    assert (score.value, score.verdict) == (1.0, "correct"), score.explanation


@pytest.mark.parametrize(("reference", "answer"), WRONG)
def test_other_answers_are_wrong(problem: MakeProblem, reference: str, answer: str) -> None:
    score = final_answer(problem(reference), f"Hence\n#### {answer}")
    assert (score.value, score.verdict) == (0.0, "wrong"), score.explanation


@pytest.mark.parametrize("answer", UNPARSABLE, ids=lambda answer: answer[:12])
def test_an_answer_that_is_no_mathematics_is_unparsable(
    problem: MakeProblem, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _use(monkeypatch, checker := MathChecker(30.0))  # a worker started here would write here
    score = final_answer(problem("3"), f"#### {answer}")
    checker.close()
    assert (score.value, score.verdict, score.answer) == (0.0, "unparsable", None)
    assert list(tmp_path.iterdir()) == []


def test_explanations_say_what_was_read_and_expected(problem: MakeProblem) -> None:
    assert final_answer(problem("18"), "#### $18.00").explanation == "18 equals 18"
    assert final_answer(problem("#### 18"), "#### 17").explanation == "answer 17, expected 18"
    assert final_answer(problem("18"), "18").explanation.startswith("no final answer: expected '#### <answer>'")
    assert "several answers, 3 or 4" in final_answer(problem("3"), "#### 3 or 4").explanation
    assert len(final_answer(problem("18"), "#### " + "1+" * 400 + "1 or 2").explanation) < 200


@pytest.mark.parametrize(
    ("spellings", "canonical"),
    [
        (["1,234", "1234.0", "$1234", "**1,234** apples"], "1234"),
        (["0.5", "1/2", r"\frac{2}{4}", "50e-2"], "1/2"),
        (["Tuesday", "tuesday", r"\text{Tuesday}"], "tuesday"),
    ],
)
def test_equal_answers_share_a_canonical_form(problem: MakeProblem, spellings: list[str], canonical: str) -> None:
    assert {final_answer(problem("7"), f"#### {s}").answer for s in spellings} == {canonical}


@pytest.mark.parametrize("reference", [None, "", "several\nlines"])
def test_a_reference_that_cannot_be_read_is_an_error_naming_the_problem(
    problem: MakeProblem, reference: str | None
) -> None:
    score = final_answer(problem(reference), "#### 3")
    assert (score.value, score.verdict) == (None, "error")
    assert "p17" in score.explanation


def test_a_slow_comparison_is_a_timeout_and_is_not_tried_twice(
    problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, checker := MathChecker(1.0))
    scores = [final_answer(problem("3"), "#### 9^{9^{9^{9}}}") for _ in range(2)]
    assert [(s.value, s.verdict) for s in scores] == [(None, "timeout")] * 2
    assert checker.pid is None


def test_a_worker_that_dies_is_an_error_and_the_next_one_works(
    problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [sys.executable, "-c", 'print(\'["ready", ""]\', flush=True); input(); raise SystemExit(3)']
    _use(monkeypatch, MathChecker(30.0, dying))
    score = final_answer(problem("x+1"), "#### 1+x")
    assert (score.value, score.verdict) == (None, "error")
    assert "exit code 3" in score.explanation
    monkeypatch.setattr(module, "_checker", checker := MathChecker(30.0))
    assert final_answer(problem("x+1"), "#### 1+x").verdict == "correct"
    checker.close()


def test_comparisons_are_remembered(problem: MakeProblem, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Counting(MathChecker):
        def compare(self, reference: str, answer: str) -> str:
            asked.append((reference, answer))
            if len(asked) == 1:
                raise MathCheckError("a failure is not remembered")
            return "equal"

    _use(monkeypatch, Counting())
    verdicts = [final_answer(problem("x+1"), "#### 1+x").verdict for _ in range(3)]
    assert verdicts == ["error", "correct", "correct"]
    assert len(asked) == 2


def test_threads_may_grade_at_once(problem: MakeProblem) -> None:
    scores: list[Score] = []
    threads = [
        threading.Thread(target=lambda n=n: scores.append(final_answer(problem(f"x+{n}"), f"#### {n}+x")))
        for n in range(100, 108)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [score.verdict for score in scores] == ["correct"] * 8


def test_plain_numbers_need_neither_math_verify_nor_a_worker() -> None:
    program = """
import sys
from data.rewards import load_reward
from data.rewards.final_answer import _checker
from data.rows import Problem
reward = load_reward("final_answer")
for answer in ("18", "$17", "3 or 4", "Tuesday", "9" * 10**6):
    reward(Problem("p", [], "18", None, "", ""), "#### " + answer)
loaded = {"torch", "sympy", "math_verify", "prefect", "mlflow"} & set(sys.modules)
sys.exit(f"loaded {loaded}, worker {_checker.pid}" if loaded or _checker.pid else 0)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def _use(monkeypatch: pytest.MonkeyPatch, checker: MathChecker) -> None:
    module._math_verify.cache_clear()
    monkeypatch.setattr(module, "_checker", checker)
