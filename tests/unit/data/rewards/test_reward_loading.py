"""Rewards by name and by import path: what loads, what is refused, and with which words."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.rewards import RewardError, grader_version, load_reward
from data.rewards.final_answer import final_answer
from data.rows import Problem, Score

SOURCE = """
from functools import partial
LIMIT = 3
class Grader: pass
def exact_match(problem, completion, strict=True): return completion == problem.reference
def one(problem): ...
def three(problem, completion, extra): ...
half = partial(exact_match, None)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory that is not on the search path, as for a console script."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def test_a_built_in_reward_loads_by_name() -> None:
    assert load_reward("final_answer") is final_answer
    assert grader_version(final_answer) == "final_answer@4"
    assert grader_version(load_reward("data.rewards.final_answer:final_answer")) == "final_answer@4"


def test_an_own_reward_loads_from_the_current_directory(here: Path) -> None:
    (here / "own_rewards.py").write_text(SOURCE)
    assert load_reward("own_rewards:exact_match").__name__ == "exact_match"


def test_an_own_reward_loads_from_a_package(here: Path) -> None:
    (here / "own_package").mkdir()
    (here / "own_package" / "rewards.py").write_text(SOURCE)
    assert load_reward("own_package.rewards:exact_match").__name__ == "exact_match"


def test_an_edit_changes_the_version_of_an_own_reward(here: Path) -> None:
    (here / "own_rewards.py").write_text(SOURCE)
    reward = load_reward("own_rewards:exact_match")
    before = grader_version(reward)
    assert before.startswith("own_rewards:exact_match@") and len(before.partition("@")[2]) == 12
    assert grader_version(reward) == before
    (here / "own_rewards.py").write_text(SOURCE + "\nLIMIT = 4\n")
    assert grader_version(reward) != before


def test_a_reward_without_a_source_file_has_no_version() -> None:
    def reward(problem: Problem, completion: str) -> Score:
        return Score(1.0, "correct")

    reward.__module__ = "__main__without_file__"
    with pytest.raises(RewardError, match="no source file"):
        grader_version(reward)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "final_anser",
            ["no built-in reward 'final_anser'", "Did you mean 'final_answer'?", "package.module:function"],
        ),
        ("zzz", ["no built-in reward 'zzz'", "Use one of final_answer"]),
        ("own_rewards:", ["not an import path", "package.module:function"]),
        (":exact_match", ["not an import path"]),
        ("own_absent:f", ["no module 'own_absent'", "Searched", "install it"]),
        ("own_absent.part:f", ["no module 'own_absent'"]),
        ("own_rewards.py:exact_match", ["Write 'own_rewards', without '.py'"]),
        ("own_broken:f", ["importing 'own_broken' raised ZeroDivisionError", "python -c 'import own_broken'"]),
        ("own_needy:f", ["importing 'own_needy' raised ModuleNotFoundError", "own_dependency"]),
        ("own_leaving:f", ["importing 'own_leaving' raised SystemExit"]),
        ("own_rewards:exact_mach", ["has no 'exact_mach'", "Did you mean 'exact_match'?", "own_rewards.py"]),
        ("own_rewards:LIMIT", ["is an object of type 'int', not a function"]),
        ("own_rewards:Grader", ["is a class, not a function"]),
        ("own_rewards:half", ["is an object of type 'partial', not a function"]),
        ("own_rewards:one", ["parameters (problem)", "called with two", "Define it as (problem, completion)"]),
        ("own_rewards:three", ["parameters (problem, completion, extra)", "missing a required argument: 'extra'"]),
    ],
)
def test_a_reward_that_cannot_be_loaded_says_why_and_what_to_do(here: Path, name: str, says: list[str]) -> None:
    (here / "own_rewards.py").write_text(SOURCE)
    (here / "own_broken.py").write_text("1 / 0")
    (here / "own_needy.py").write_text("import own_dependency")
    (here / "own_leaving.py").write_text("raise SystemExit(1)")
    with pytest.raises(RewardError) as error:
        load_reward(name)
    for part in says:
        assert part in str(error.value)
