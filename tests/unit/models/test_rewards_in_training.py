"""Rewards inside a training program: what fails is counted, and ends it if it is too much."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import models.training.rewards
from data.combining import Combination, Part
from data.rows import Problem, Rollout, Sample, Score
from models.config import RewardScoreProgram, ScoringConfig
from models.on_policy import JudgedBy
from models.rounds import ScorerError
from models.training.rewards import Rewards, rewards

PROBLEM = Problem("a", [{"role": "user", "content": "6 + 15?"}], "21", None, "s", "train")
OTHER = Problem("b", [{"role": "user", "content": "2 + 2?"}], "4", None, "s", "train")


def judged_by(*names: str, **changes: Any) -> JudgedBy:
    told = {"graders": {name: f"{name} 1" for name in names}, "combination": None, "isolation": "limits"}
    return JudgedBy.model_validate(told | {"workers": 1, "max_error_share": 0.25} | changes)


def drawn(problem: Problem, *texts: str, end: str = "stop") -> tuple[Problem, list[Sample]]:
    return problem, [Sample(problem.id, i, text, [1, 2], end, "", 0, "") for i, text in enumerate(texts)]


def fails(problem: Problem, completion: str) -> Score:
    if completion.endswith("4"):
        raise ConnectionError("no server")
    return Score(1.0, "correct")


def ends_its_process(problem: Problem, completion: str) -> Score:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


FAILS, ENDS = f"{__name__}:fails", f"{__name__}:ends_its_process"


def test_each_group_gets_its_scores_in_order() -> None:
    with rewards(judged_by("final_answer")) as ready:
        found = ready.scores([drawn(PROBLEM, "#### 21", "#### 20"), drawn(OTHER, "#### 4")])
    assert [[score.value for score in scores] for scores in found] == [[1.0, 0.0], [1.0]]
    assert [(s.problem_id, s.index, s.grader) for s in found[0]] == [
        ("a", 0, "final_answer 1"),
        ("a", 1, "final_answer 1"),
    ]
    assert ready.tally.samples == 3 and ready.seconds > 0


def test_what_a_reward_fails_on_has_no_value_and_is_counted() -> None:
    with rewards(judged_by(FAILS)) as ready:
        ((one, other),) = ready.scores([drawn(PROBLEM, "4", "5")])
    assert (one.value, one.verdict, other.value) == (None, "error", 1.0)
    assert (ready.tally.samples, ready.tally.errors) == (2, 1) and "no server" in ready.tally.first_traceback


def earlier(index: int, value: float | None, token_ids: Sequence[int] = (1, 2)) -> Rollout:
    verdict = "error" if value is None else "correct"
    sampled = {"completion": "", "token_ids": list(token_ids), "finish_reason": "stop", "seed": 0}
    scored = {"value": value, "verdict": verdict, "explanation": "", "answer": None, "grader": "old", "parts": []}
    return Rollout("a", index, 1, **sampled, **scored, advantage=0.0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([earlier(0, 7.0), earlier(1, 8.0)], [7.0, 8.0]),
        ([earlier(0, 7.0), earlier(1, None)], [1.0, 3.0]),
        ([earlier(0, 7.0), earlier(1, 8.0, (1, 3))], [1.0, 3.0]),
        ([earlier(0, 7.0)], [1.0, 3.0]),
    ],
)
def test_scores_of_an_earlier_attempt_hold_for_the_same_answers_if_all_were_graded(
    rows: list[Rollout], expected: list[float]
) -> None:
    ready = Rewards(judged_by("length"), {"length": length}, None)
    ready.known = {(row.problem_id, row.index): row for row in rows}
    ((one, other),) = ready.scores([drawn(PROBLEM, "a", "bcd")])
    assert [one.value, other.value] == expected and ready.tally.samples == 2


def test_a_scoring_process_that_is_killed_is_an_error_of_its_own() -> None:
    with (
        pytest.raises(ScorerError, match="has ended, perhaps killed for its memory"),
        rewards(judged_by(ENDS)) as ready,
    ):
        ready.scores([drawn(PROBLEM, "5")])


def length(groups: Sequence[tuple[Problem, Sequence[Sample]]]) -> list[list[Score]]:
    """A model that values length."""
    return [
        [Score(float(len(s.text)), "correct", "", None, s.problem_id, s.index, "length 1") for s in samples]
        for _, samples in groups
    ]


def test_a_model_alone_is_counted_and_needs_no_processes() -> None:
    ready = Rewards(judged_by("length"), {"length": length}, None)
    assert [[s.value for s in scores] for scores in ready.scores([drawn(PROBLEM, "a", "bcd")])] == [[1.0, 3.0]]
    assert ready.tally.samples == 2


def test_functions_and_models_make_one_reward_in_the_order_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.training.rewards, "_model", lambda program: length)
    parts = {"length": Part(weight=0.5), "final_answer": Part()}
    program = RewardScoreProgram(model=Path("model"), scoring=ScoringConfig())
    several = {"combination": Combination(parts, passes_at=1.0), "models": {"length": program}}
    with rewards(judged_by("length", "final_answer", **several)) as ready:
        ((right, wrong),) = ready.scores([drawn(PROBLEM, "#### 21", "#### 20")])
        ((cut,),) = ready.scores([drawn(PROBLEM, "#### 21", end="length")])
    assert (right.value, wrong.value, cut.value) == (4.5, 3.5, 0.0)
    assert right.grader == "length 1+final_answer 1"
    assert [part["name"] for part in right.parts] == ["length", "final_answer"]
    assert ready.tally.samples == 3  # the combination alone
