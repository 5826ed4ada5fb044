"""Real on-policy learning: engine and trainer agree; neither a kill nor a division into iterations changes a byte."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data.files import file_sha256
from data.rows import Problem
from data.storage import write_rows
from models.config import EngineConfig, LaunchConfig
from models.launch import ON_POLICY
from models.on_policy import JudgedBy, OnPolicyConfig, OnPolicyProgram, OnPolicySamplingConfig
from tests.e2e.conftest import kill_at_checkpoint, train

STEPS = 4
REWARDS = {"graders": {"final_answer": "final_answer"}, "combination": None, "isolation": "limits"}


@pytest.fixture(scope="module")
def asked(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("asked") / "problems.parquet"
    write_rows(Problem, file, [p for p in problems if p.split == "train"][:40])
    return file


def program(folder: Path, policy: Path, asked: Path, launch: dict[str, Any] | None = None) -> OnPolicyProgram:
    """Four steps of 16 problems × 4 answers, two updates each; the order of the problems begins anew in the third."""
    how = {"steps": STEPS, "problems": 16, "batch_size": 32, "learning_rate": 1e-4, "dtype": "float32", "refills": 1}
    return OnPolicyProgram(
        policy=policy,
        reference=policy,
        state=None,
        problems=asked,
        output=folder / "policy",
        seed=3,
        sampling=OnPolicySamplingConfig(samples=4, max_tokens=40, dtype="float32"),
        judged_by=JudgedBy.model_validate(REWARDS | {"workers": 1, "max_error_share": 0.01}),
        engine=EngineConfig(max_num_seqs=64),
        train=OnPolicyConfig.model_validate(how | {"kl": 0.01, "overlong": 8}),
        launch=LaunchConfig.model_validate({"micro_batch_size": 16, "checkpoint_steps": 2} | (launch or {})),
        first_step=0,
        total_steps=STEPS,
    )


def seen(folder: Path, *names: str) -> list[list[float]]:
    """What metrics.jsonl has by these names, step by step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [[line[name] for name in names] for line in lines]


@pytest.fixture(scope="module")
def plain(policy: Path, asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    train(folder, program(folder, policy, asked), ON_POLICY)
    return folder


def test_the_engine_has_the_trainers_weights_in_every_step(plain: Path) -> None:
    assert [step for (step,) in seen(plain, "step")] == [1, 2, 3, 4]
    for drift, corrected in seen(plain, "drift", "corrected"):
        assert 0 < drift < 1e-4 and corrected == 0


def test_the_policy_moves_away_from_its_reference(plain: Path) -> None:
    (first,), *others = seen(plain, "kl")
    assert abs(first) < 1e-6 and all(kl > 1e-6 for (kl,) in others)
    assert all(0 < rate <= 1e-4 for (rate,) in seen(plain, "learning_rate"))


def test_killed_by_sigkill_it_goes_on_to_identical_weights(
    policy: Path, asked: Path, plain: Path, tmp_path: Path
) -> None:
    job = program(tmp_path, policy, asked)
    kill_at_checkpoint(tmp_path, job, ON_POLICY)
    train(tmp_path, job, ON_POLICY, anew=True)
    same_results(tmp_path, plain)


def test_two_iterations_of_two_steps_are_one_of_four(policy: Path, asked: Path, plain: Path, tmp_path: Path) -> None:
    whole = program(tmp_path, policy, asked)
    half = whole.train.model_copy(update={"steps": 2})
    first = whole.model_copy(update={"train": half, "output": tmp_path / "1" / "policy"})
    train(tmp_path / "1", first, ON_POLICY)
    goes_on = {"first_step": 2, "policy": first.output, "state": tmp_path / "1" / "state"}
    second = first.model_copy(update=goes_on | {"output": tmp_path / "2" / "policy"})
    train(tmp_path / "2", second, ON_POLICY)
    lines = [(tmp_path / folder / "metrics.jsonl").read_text() for folder in ("1", "2")]
    (tmp_path / "2" / "metrics.jsonl").write_text("".join(lines))
    same_results(tmp_path / "2", plain)


@pytest.mark.parametrize(("changed", "says"), [("zero_stage", "zero_stage was 1, is 0"), ("step", "step was 9, is 2")])
def test_a_state_of_other_settings_is_refused(
    policy: Path, asked: Path, plain: Path, tmp_path: Path, changed: str, says: str
) -> None:
    shutil.copytree(plain / "state", tmp_path / "before")
    place = tmp_path / "before/place.json"
    told = json.loads(place.read_text()) | {"step": 2}
    place.write_text(json.dumps(told | {changed: {"zero_stage": 1, "step": 9}[changed]}))
    job = program(tmp_path, policy, asked).model_copy(update={"first_step": 2, "state": tmp_path / "before"})
    with pytest.raises(AssertionError, match=says):
        train(tmp_path, job, ON_POLICY)


def same_results(folder: Path, other: Path) -> None:
    names = ("reward", "loss", "kl", "entropy", "drift", "clipped", "without_spread")
    assert seen(folder, *names) == seen(other, *names)
    assert file_sha256(folder / "policy/model.safetensors") == file_sha256(other / "policy/model.safetensors")
    for file in ("state/place.json", "state/state/mp_rank_00_model_states.pt"):
        assert file_sha256(folder / file) == file_sha256(other / file), file


@pytest.mark.nightly
@pytest.mark.parametrize("launch", [{"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3, "offload": "all"}])
def test_zero_stages_agree_on_the_losses(
    policy: Path, asked: Path, plain: Path, tmp_path: Path, launch: dict[str, Any]
) -> None:
    train(tmp_path, program(tmp_path, policy, asked, launch), ON_POLICY)
    for found, expected in zip(seen(tmp_path, "loss", "kl"), seen(plain, "loss", "kl"), strict=True):
        assert found == pytest.approx(expected, abs=2e-4)


@pytest.mark.nightly
def test_two_processes_learn_together(policy: Path, asked: Path, tmp_path: Path) -> None:
    """They draw other problems, each its own, but have the same weights after each step."""
    train(tmp_path, program(tmp_path, policy, asked, {"processes": 2, "micro_batch_size": 8}), ON_POLICY)
    assert all(0 < drift < 1e-4 for (drift,) in seen(tmp_path, "drift"))
    assert json.loads((tmp_path / "state/place.json").read_text())["positions"][0] > 0
