"""Real on-policy learning: engine and trainer agree; neither a kill nor a division into iterations changes a byte."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from data.combining import Combination, Part
from data.files import file_sha256
from data.rows import Problem, Rollout
from data.storage import read_rows, write_rows
from models.config import EngineConfig, JudgeConfig, LaunchConfig
from models.launch import ON_POLICY
from models.loading import load_tokenizer
from models.on_policy import ROLLOUTS, GroupsConfig, JudgedBy, OnPolicyProgram, OnPolicySamplingConfig
from models.training.common import load_reward_model
from tests.e2e.conftest import kill_at_checkpoint, train, write_config
from tests.e2e.programs import printed, started
from tests.endpoint import serving
from tests.waiting import eventually, wait_gone

STEPS = 5
NEVER, FAILS = "tests.flows.rewards:never", "tests.flows.rewards:needs_a_server"
ADAPTER = {"rank": 4, "alpha": 8, "targets": ["q_proj", "v_proj", "down_proj"]}
REWARDS = {"graders": {"final_answer": "final_answer"}, "combination": None, "isolation": "limits"}


@pytest.fixture(scope="module")
def asked(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("asked") / "problems.parquet"
    write_rows(Problem, file, [p for p in problems if p.split == "train"][:40])
    return file


def program(
    folder: Path, policy: Path, asked: Path, launch: dict[str, Any] | None = None, adapter: dict[str, Any] | None = None
) -> OnPolicyProgram:
    """Five steps of 16 problems × 4 answers, two updates each; the order of the problems begins anew in the third."""
    how = {"steps": STEPS, "problems": 16, "batch_size": 32, "dtype": "float32", "refills": 1, "weight_decay": 0.01}
    how |= {"adapter": adapter, "learning_rate": 1e-2 if adapter else 1e-4}
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
        train=GroupsConfig.model_validate(how | {"kl": 0.01, "overlong": 8}),
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
    assert [step for (step,) in seen(plain, "step")] == [1, 2, 3, 4, 5]
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


def in_two_iterations(folder: Path, whole: OnPolicyProgram) -> Path:
    """Make the steps of a program in two iterations; return the folder of the second, with the steps of both."""
    two, others = (whole.train.model_copy(update={"steps": steps}) for steps in (2, STEPS - 2))
    first = whole.model_copy(update={"train": two, "output": folder / "1" / "policy"})
    train(folder / "1", first, ON_POLICY)
    before = first.policy if two.adapter else first.output  # an adapter's stage merges it, for the engine alone
    goes_on = {"first_step": 2, "policy": before, "state": folder / "1" / "state", "train": others}
    train(folder / "2", first.model_copy(update=goes_on | {"output": folder / "2" / "policy"}), ON_POLICY)
    lines = [(folder / number / "metrics.jsonl").read_text() for number in ("1", "2")]
    (folder / "2" / "metrics.jsonl").write_text("".join(lines))
    for file in (folder / "1" / ROLLOUTS).iterdir():
        shutil.copy(file, folder / "2" / ROLLOUTS)
    return folder / "2"


def test_iterations_of_two_and_three_steps_are_one_of_five(
    policy: Path, asked: Path, plain: Path, tmp_path: Path
) -> None:
    same_results(in_two_iterations(tmp_path, program(tmp_path, policy, asked)), plain)


def test_every_answer_is_kept_with_what_was_learned_from_it(plain: Path) -> None:
    rows = list(read_rows(Rollout, plain / ROLLOUTS))
    assert len({(row.problem_id, row.index) for row in rows}) == len(rows)
    for step, (reward, length) in enumerate(seen(plain, "reward", "length"), start=1):
        drawn = [row for row in rows if row.step == step]
        assert sum(row.value or 0.0 for row in drawn) / len(drawn) == pytest.approx(reward)
        assert sum(len(row.token_ids) for row in drawn) / len(drawn) == pytest.approx(length)
        learned = [row.advantage for row in drawn if row.advantage is not None]
        assert len(learned) == 16 * 4 and sum(learned) == pytest.approx(0, abs=1e-3)


@pytest.fixture(scope="module")
def adapted(policy: Path, asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted")
    return in_two_iterations(folder, program(folder, policy, asked, adapter=ADAPTER))


def test_an_adapter_goes_on_over_iterations_and_is_merged_for_the_engine(adapted: Path, policy: Path) -> None:
    for drift, corrected in seen(adapted, "drift", "corrected"):
        assert 0 < drift < 1e-4 and corrected == 0
    (first,), *others = seen(adapted, "kl")  # the reference is the policy without it
    assert abs(first) < 1e-6 and all(kl > 1e-5 for (kl,) in others)
    (state,) = (adapted / "state").glob("*/*.pt")
    whole = sum(file.stat().st_size for file in policy.glob("*.safetensors"))
    assert state.stat().st_size < whole / 2  # the adapter's weights and moments alone
    assert {file.name for file in (adapted / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("launch", "adapter"), [({}, {}), ({"zero_stage": 3}, {}), ({}, {"quantize": True})], ids=["whole", "zero-3", "nf4"]
)
def test_an_adapter_learns_the_same_however_it_is_held(
    policy: Path, asked: Path, adapted: Path, tmp_path: Path, launch: dict[str, Any], adapter: dict[str, Any]
) -> None:
    job = program(tmp_path, policy, asked, launch, ADAPTER | adapter)
    if launch:
        folder = in_two_iterations(tmp_path, job)
        for found, expected in zip(seen(folder, "loss", "kl"), seen(adapted, "loss", "kl"), strict=True):
            assert found == pytest.approx(expected, abs=2e-4)
        return
    train(tmp_path, job, ON_POLICY)
    if not adapter:
        same_results(tmp_path, adapted, "adapter/adapter_model.safetensors")
    assert all(0 < drift < 1e-4 for (drift,) in seen(tmp_path, "drift"))


@pytest.fixture(scope="module")
def scorer(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with a random head."""
    folder = tmp_path_factory.mktemp("scorer")
    tokenizer = load_tokenizer(policy, "refuse")
    torch.manual_seed(0)
    model = load_reward_model(policy, tokenizer, "float32")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_models_score_beside_functions(policy: Path, asked: Path, tmp_path: Path, scorer: Path) -> None:
    graders = {"final_answer": "final_answer", "judge": "judge 1", "reward-model": "rm 1"}
    parts = {"final_answer": Part(), "judge": Part(weight=0.1), "reward-model": Part(weight=0.1)}
    job = program(tmp_path, policy, asked)
    with serving() as server:
        server.answer = lambda body: (200, json.dumps({"reasoning": "It is short.", "score": 3}))
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1"
        judge = JudgeConfig(model="a judge", opinions=1, temperature=0, endpoint=endpoint)
        told = {"judge": judge, "policy": None, "jobs": [], "engine": job.engine, "seed": 1, "grader": "judge 1"}
        told = {"judge": told, "reward-model": {"model": scorer, "scoring": {"dtype": "float32"}, "grader": "rm 1"}}
        rewards = {"graders": graders, "models": told, "combination": Combination(parts)}
        judged_by = JudgedBy.model_validate(REWARDS | rewards | {"workers": 1, "max_error_share": 0.01})
        short = job.train.model_copy(update={"steps": 1, "refills": 0})
        train(tmp_path, job.model_copy(update={"judged_by": judged_by, "train": short}), ON_POLICY)
        drawn = list(read_rows(Rollout, tmp_path / ROLLOUTS))
        finished = [row for row in drawn if row.finish_reason == "stop"]
        assert len(server.requests) == len(finished) > 0
    assert {row.grader for row in drawn} == {"final_answer+judge 1+rm 1"}
    assert len({row.value for row in finished}) > len(finished) / 2  # a reward model gives no two the same
    assert all(row.value == 0 for row in drawn if row.finish_reason != "stop")


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


def same_results(folder: Path, other: Path, weights: str = "policy/model.safetensors") -> None:
    names = ("reward", "loss", "kl", "entropy", "drift", "clipped", "length")
    assert seen(folder, *names) == seen(other, *names)
    assert {file.name for file in (folder / ROLLOUTS).iterdir()} == {file.name for file in (other / ROLLOUTS).iterdir()}
    rollouts = [f"{ROLLOUTS}/{file.name}" for file in (other / ROLLOUTS).iterdir()]
    for file in (weights, "state/place.json", "state/state/mp_rank_00_model_states.pt", *rollouts):
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


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("train_changes", "changes", "says"),
    [
        ({"learning_rate": 1e18}, {}, "not finite|is nan"),
        ({"most_drift": 1e-9}, {}, "more than train.most_drift, 1e-09"),
        (
            {"patience": 2},
            {"graders": {NEVER: "never"}},
            "In 2 steps in a row, up to step 2, all answers",
        ),
        ({}, {"graders": {FAILS: "fails"}}, "The reward failed on"),
    ],
    ids=["nan", "drift", "no-spread", "reward"],
)
def test_what_cannot_go_on_stops_with_what_to_do(
    policy: Path, asked: Path, tmp_path: Path, train_changes: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    job = program(tmp_path, policy, asked)
    judged_by = job.judged_by.model_copy(update=changes)
    changed = {"train": job.train.model_copy(update=train_changes), "judged_by": judged_by}
    with pytest.raises(AssertionError, match=says):
        train(tmp_path, job.model_copy(update=changed), ON_POLICY)
    assert "Traceback" not in (tmp_path / "train.out").read_text()
    assert not (tmp_path / "policy").exists()


def killed_at_twenty_moments(parent: Path, made: Callable[[Path], OnPolicyProgram]) -> Path:
    """Run sixty steps to their end, and again with twenty kills; both end with the same bytes.

    Returns:
        The folder of the one that was killed; the other is `whole`.
    """
    rng, steps = random.Random(0), 60

    def job(folder: Path) -> OnPolicyProgram:
        short = made(folder)
        longer = {"train": short.train.model_copy(update={"steps": steps}), "total_steps": steps}
        return short.model_copy(update=longer)

    train(parent / "whole", job(parent / "whole"), ON_POLICY)
    folder = parent / "killed"
    config, journal, places = write_config(folder, job(folder)), folder / "metrics.jsonl", []

    def more_than(known: str) -> bool:
        return journal.exists() and journal.read_text() != known

    for kill in range(20):
        before = journal.read_text() if journal.exists() else ""
        with started(ON_POLICY, config) as process:
            if kill % 4:  # between two steps or within one; otherwise while it starts
                eventually(partial(more_than, before))
            time.sleep(rng.uniform(0, 2 if kill % 4 else 10))
            assert process.poll() is None, printed(config)
        places.append(len(journal.read_text().splitlines()) if journal.exists() else 0)
    assert places[-1] < steps and len(set(places)) > 5
    train(folder, job(folder), ON_POLICY, anew=True)
    same_results(folder, parent / "whole")
    return folder


@pytest.mark.nightly
def test_killed_at_twenty_moments_it_ends_with_the_same_bytes(policy: Path, asked: Path, tmp_path: Path) -> None:
    killed_at_twenty_moments(tmp_path, lambda folder: program(folder, policy, asked, {"checkpoint_steps": 1}))


SETTINGS = """
limit_validation: 24
limit_test: 24
limit_transfer: 24
generate: {samples: 4, max_tokens: 40, dtype: float32}
train: {steps: 200, problems: 16, batch_size: 64, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
launch: {micro_batch_size: 16}
"""


@pytest.mark.nightly
def test_stopped_it_leaves_nothing_within_ten_seconds(policy: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    autodidact = Path(sys.executable).with_name("autodidact")
    command = [autodidact, "grpo", "--config", "settings.yaml", "--run", "stopped", "--model", policy]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_", "VLLM_"))}
    where = {"cwd": tmp_path, "env": kept | {"AUTODIDACT_CACHE": str(tmp_path / "cache")}, "start_new_session": True}
    output, journal = tmp_path / "output.txt", tmp_path / "runs/stopped/iter-1/.train.attempt/metrics.jsonl"
    with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **where) as process:
        eventually(lambda: process.poll() is not None or (journal.exists() and journal.read_text()))
        assert process.poll() is None, output.read_text()[-3000:]
        found = psutil.Process(process.pid).children(recursive=True)
        assert any("models.training.on_policy" in " ".join(child.cmdline()) for child in found)
        process.send_signal(signal.SIGTERM)
        for child in found:
            wait_gone(child.pid, 10)
        process.wait(10)
