"""Answers as MATH writes them get the verdict that they deserve."""

from collections.abc import Callable

import pytest

from data.rewards.final_answer import final_answer
from data.rows import Problem
from tests.unit.data.rewards.math_style import OTHER, SAME

MakeProblem = Callable[[str | None], Problem]


def test_the_tables_are_long_enough_and_hold_no_pair_twice() -> None:
    assert len(SAME) + len(OTHER) >= 150
    assert len(set(SAME) | set(OTHER)) == len(SAME) + len(OTHER)


@pytest.mark.parametrize(("reference", "answer"), SAME)
def test_the_same_answer_written_otherwise_is_correct(problem: MakeProblem, reference: str, answer: str) -> None:
    score = final_answer(problem(rf"So it is \boxed{{{reference}}}."), rf"Therefore \boxed{{{answer}}}.")
    assert score.verdict == "correct", score.explanation


@pytest.mark.parametrize(("reference", "answer"), OTHER)
def test_another_answer_is_not_correct(problem: MakeProblem, reference: str, answer: str) -> None:
    score = final_answer(problem(rf"So it is \boxed{{{reference}}}."), rf"Therefore \boxed{{{answer}}}.")
    assert score.verdict in ("wrong", "unparsable"), score.explanation
