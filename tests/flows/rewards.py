"""Rewards for tests, named by import path as a user's own would be."""

import os
from pathlib import Path
from typing import ClassVar

from data.rewards.final_answer import final_answer
from data.rows import Problem, Score
from models.config import EngineConfig, ScoreJob
from tasks.rollouts.model_reward import ModelReward
from tasks.stage.run import Place


def never(problem: Problem, completion: str) -> Score:
    return Score(0.0, "wrong", "never right")


def forgetful(problem: Problem, completion: str) -> Score:
    """Right as final_answer says; on validation only for every tenth problem, whatever the policy."""
    if problem.split == "validation":
        right = int(problem.id, 16) % 10 == 0
        return Score(float(right), "correct" if right else "wrong")
    return final_answer(problem, completion)


def talkative(problem: Problem, completion: str) -> Score:
    """Right as final_answer says, with an explanation that repeats what the policy wrote, at great length."""
    score = final_answer(problem, completion)
    return Score(score.value, score.verdict, completion + "\ud800" * 20_000, score.answer)


def brief(problem: Problem, completion: str) -> Score:
    """Right if it is short, whatever was asked."""
    right = len(completion) < 14
    return Score(float(right), "correct" if right else "wrong")


brief.reads = "prompts"  # type: ignore[attr-defined]


def needs_a_server(problem: Problem, completion: str) -> Score:
    """Fails as long as the file that FLAKY_SERVER names is not there."""
    if not Path(os.environ["FLAKY_SERVER"]).exists():
        raise ConnectionError("the server is down")
    return final_answer(problem, completion)


class Lengths(ModelReward):
    """A model with a program of its own."""

    grader: ClassVar[str] = "lengths@1"

    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        raise AssertionError("nothing is scored")
