"""Real PPO: values are learned beside the policy; neither a division into iterations nor ZeRO changes what comes."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.rows import Example, Problem, Rollout
from data.storage import read_rows, write_rows
from models.launch import ON_POLICY
from models.on_policy import OnPolicyProgram, PPOConfig
from tests.e2e.conftest import autodidact, kill_at_checkpoint, train
from tests.e2e.test_grpo import (
    FAILS,
    STEPS,
    asked,
    in_two_iterations,
    killed_at_twenty_moments,
    program,
    same_results,
    scorer,
    seen,
)

__all__ = ["asked", "scorer"]  # fixtures

HOW = {"steps": STEPS, "problems": 32, "batch_size": 32, "epochs": 2, "learning_rate": 2e-4, "dtype": "float32"}
HOW |= {"kl_target": 1e-4, "kl_horizon": 100, "scale_rewards": True, "value_learning_rate": 1e-3, "warmup": 0}
HOW |= {"ptx": 0.1, "ptx_rows": 2}
SEEN = ("score", "kl_per_answer", "kl_weight", "explained_variance", "value_loss", "value_clipped", "ptx_loss")


def job(folder: Path, policy: Path, asked: Path, value: Path, **changes: Any) -> OnPolicyProgram:
    """One answer to each of 32 problems a step, and two passes over them, with twice as many gold answers."""
    whole = program(folder, policy, asked, changes.pop("launch", None))
    mix = asked.with_name("mix.parquet")
    rows = (Example(p.id, 0, p.messages, f"#### {p.reference}", None, "") for p in read_rows(Problem, asked))
    write_rows(Example, mix, list(rows)[:24])
    told = {"train": PPOConfig.model_validate(HOW | changes), "value": value, "mix": mix}
    return whole.model_copy(update=told | {"sampling": whole.sampling.model_copy(update={"samples": 1})})


@pytest.fixture(scope="module")
def plain(policy: Path, asked: Path, scorer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ppo")
    train(folder, job(folder, policy, asked, scorer), ON_POLICY)
    return folder


def test_values_are_learned_and_the_weight_of_the_divergence_follows_it(plain: Path) -> None:
    divergences, weights, explained = zip(*seen(plain, "kl_per_answer", "kl_weight", "explained_variance"), strict=True)
    assert divergences[0] == pytest.approx(0, abs=1e-4) and weights[0] == 0.05
    assert weights[1] < weights[0] and weights[-1] > weights[-2]  # it was below its target, and is above
    assert explained[-1] > explained[0]
    assert all(0 < drift < 1e-4 for (drift,) in seen(plain, "drift"))


def test_iterations_of_two_and_three_steps_are_one_of_five(
    policy: Path, asked: Path, scorer: Path, plain: Path, tmp_path: Path
) -> None:
    """Value model, optimizer, the weight of the divergence and the scores so far go on."""
    halves = in_two_iterations(tmp_path, job(tmp_path, policy, asked, scorer))
    assert seen(halves, *SEEN) == seen(plain, *SEEN)
    same_results(halves, plain)


def test_the_likelihood_of_mixed_data_rises(plain: Path) -> None:
    losses = [loss for (loss,) in seen(plain, "ptx_loss")]
    assert losses[-1] < losses[0]


@pytest.mark.nightly
@pytest.mark.parametrize("launch", [{"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}])
def test_zero_stages_agree(
    policy: Path, asked: Path, scorer: Path, plain: Path, tmp_path: Path, launch: dict[str, Any]
) -> None:
    train(tmp_path, job(tmp_path, policy, asked, scorer, launch=launch), ON_POLICY)
    for found, expected in zip(seen(tmp_path, "loss", *SEEN), seen(plain, "loss", *SEEN), strict=True):
        assert found == pytest.approx(expected, abs=5e-4)


@pytest.mark.nightly
def test_an_adapter_learns_with_a_value_model_from_the_policy(
    policy: Path, asked: Path, plain: Path, tmp_path: Path
) -> None:
    train(tmp_path, job(tmp_path, policy, asked, policy, adapter={"rank": 4}, value_from="policy"), ON_POLICY)
    assert (tmp_path / "adapter/adapter_model.safetensors").exists()
    ((explained, *_), *_) = seen(tmp_path, "explained_variance", "value_loss")
    assert explained == 0  # a head of 0 expects the same everywhere


@pytest.mark.nightly
@pytest.mark.parametrize("stage", [0, 3])
def test_two_processes_learn_together(policy: Path, asked: Path, scorer: Path, tmp_path: Path, stage: int) -> None:
    launch = {"processes": 2, "zero_stage": stage}
    train(tmp_path, job(tmp_path, policy, asked, scorer, launch=launch), ON_POLICY)
    assert all(0 < drift < 1e-4 for (drift,) in seen(tmp_path, "drift"))
    assert (tmp_path / "policy/model.safetensors").exists()


@pytest.mark.nightly
def test_killed_by_sigkill_it_goes_on_to_identical_weights(
    policy: Path, asked: Path, scorer: Path, plain: Path, tmp_path: Path
) -> None:
    whole = job(tmp_path, policy, asked, scorer)
    kill_at_checkpoint(tmp_path, whole, ON_POLICY)
    train(tmp_path, whole, ON_POLICY, anew=True)
    assert seen(tmp_path, *SEEN) == seen(plain, *SEEN)
    same_results(tmp_path, plain)


@pytest.mark.nightly
def test_killed_at_twenty_moments_it_ends_with_the_same_bytes(
    policy: Path, asked: Path, scorer: Path, tmp_path: Path
) -> None:
    """Policy, value model, optimizer and the weight of the divergence are in a checkpoint."""

    def whole(folder: Path) -> OnPolicyProgram:
        return job(folder, policy, asked, scorer, launch={"checkpoint_steps": 1})  # it is slower than GRPO

    killed = killed_at_twenty_moments(tmp_path, whole)
    assert seen(killed, *SEEN) == seen(tmp_path / "whole", *SEEN)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runaway_kl": 1e-9}, "KL divergence from the base was .* more than train.runaway_kl"),
        (
            {"runaway_value_loss": 1.5, "value_learning_rate": 0.3, "value_clip": 1e9, "max_grad_norm": 1e9},
            "The value model's loss of step .* train.runaway_value_loss allows 1.5 times as much.* "
            "Lower train.value_learning_rate",
        ),
    ],
)
def test_what_runs_away_stops_with_what_to_do(
    policy: Path, asked: Path, scorer: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(AssertionError, match=says):
        train(tmp_path, job(tmp_path, policy, asked, scorer, **changes), ON_POLICY)
    assert "Traceback" not in (tmp_path / "train.out").read_text() and not (tmp_path / "policy").exists()


@pytest.mark.nightly
def test_a_reward_that_fails_ends_it_in_a_sentence(policy: Path, asked: Path, scorer: Path, tmp_path: Path) -> None:
    whole = job(tmp_path, policy, asked, scorer, no_end=None)
    failing = whole.judged_by.model_copy(update={"graders": {FAILS: "fails"}})
    with pytest.raises(AssertionError, match="The reward failed on"):
        train(tmp_path, whole.model_copy(update={"judged_by": failing}), ON_POLICY)
    assert "Traceback" not in (tmp_path / "train.out").read_text()


SETTINGS = """
limit: 64
limit_validation: 24
limit_test: 24
limit_transfer: 24
iterations: 2
forced: true
stop: {rule: none}
generate: {max_tokens: 40, dtype: float32}
reward: {name: reward-model, model: {dtype: float32}}
reward_train: {learning_rate: 1.0e-3, epochs: 2, batch_size: 16, dtype: float32}
train: {steps: 2, problems: 32, batch_size: 32, epochs: 2, learning_rate: 1.0e-4, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
launch: {micro_batch_size: 16}
"""


@pytest.mark.nightly
def test_from_pairs_to_a_policy(policy: Path, problems: list[Problem], tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(SETTINGS)
    with (tmp_path / "pairs.jsonl").open("w") as file:
        for problem in [p for p in problems if p.split == "demonstration"][:200]:
            gold = problem.response or ""
            pair = {"prompt": problem.messages[0]["content"], "chosen": gold, "rejected": f"{gold}0"}
            file.write(json.dumps(pair) + "\n")
    told = ["--config", "settings.yaml", "--run", "rlhf", "--model", str(policy), "--pairs", "pairs.jsonl"]
    said = autodidact(tmp_path, "rlhf", *told)
    run = tmp_path / "runs/rlhf"
    assert "nothing is left to do" in autodidact(tmp_path, "rlhf", *told)
    assert len(list(read_rows(Rollout, run / "iter-2/train/rollouts"))) == 64
    assert (run / "best/policy/model.safetensors").exists() and "sampled pass@1" in said
