"""Answers as people and models write them get the verdict that they deserve, kind by kind."""

from collections.abc import Callable

import pytest

from data.rewards.final_answer import final_answer
from data.rows import Problem
from tests.unit.data.rewards.answer_kinds import KINDS, RIGHT

MakeProblem = Callable[[str | None], Problem]


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_of_a_kind_gets_its_verdict(problem: MakeProblem, kind: str) -> None:
    scores = [(final_answer(problem(gold), written), wanted) for gold, written, wanted in KINDS[kind]]
    assert [score.explanation for score, wanted in scores if score.verdict != wanted] == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_right_answers_and_others_and_no_row_twice(kind: str) -> None:
    rows = KINDS[kind]
    assert {wanted == RIGHT for _, _, wanted in rows} == {True, False}
    assert len({(gold, written) for gold, written, _ in rows}) == len(rows)
