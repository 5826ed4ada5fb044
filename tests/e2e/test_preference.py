"""Real training on pairs: the reference is computed once and right, ZeRO stages agree, a killed training goes on."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from data.files import file_sha256
from data.likelihood import log_ratios, preference_metrics
from data.rows import Pair, PairLikelihood
from data.storage import read_rows, write_rows
from models.config import LaunchConfig, LikelihoodProgram, PreferenceConfig, PreferenceProgram
from models.launch import LIKELIHOOD, PREFERENCE
from tests.e2e.conftest import kill_at_checkpoint, train

HYPERPARAMETERS = PreferenceConfig(
    beta=1.0, learning_rate=2e-5, epochs=1, batch_size=32, optimizer="rmsprop", dtype="float32"
)
# That all stages agree is tested with supervised training: of them, only these compute a reference in another way.
LAUNCHES = [pytest.param({"zero_stage": 3}, marks=pytest.mark.nightly), {"processes": 2, "micro_batch_size": 8}]


@pytest.fixture(scope="module")
def pairs(problems, tmp_path_factory) -> Path:
    """256 gold answers over wrong ones, which differ from them in one number."""
    rng = random.Random(0)
    file = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    worked = [p for p in problems if p.split == "demonstration"][:256]
    rows = []
    for problem in worked:
        gold = problem.response or ""
        wrong = f"{gold.rsplit(' ', 1)[0]} {(int(problem.reference or 0) + rng.randint(1, 9)) % 61}"
        rows.append(Pair(problem.id, 0, problem.messages, gold, wrong, None, None, "gold", "test"))
    write_rows(Pair, file, rows)
    return file


def measure(policy: Path, pairs: Path, folder: Path, **launch: int) -> Path:
    program = LikelihoodProgram(
        policy=policy,
        pairs=[pairs],
        outputs=[folder / "likelihood.parquet"],
        dtype="float32",
        quantize=False,
        launch=LaunchConfig(**{"micro_batch_size": 16} | launch),
    )
    train(folder, program, LIKELIHOOD)
    return folder / "likelihood.parquet"


def program(
    policy: Path, pairs: Path, reference: Path, folder: Path, held_out: bool = False, **launch: int
) -> PreferenceProgram:
    return PreferenceProgram(
        policy=policy,
        pairs=[pairs],
        reference=[reference],
        held_out=pairs if held_out else None,
        held_out_reference=reference if held_out else None,
        output=folder / "policy",
        seed=1,
        train=HYPERPARAMETERS,
        launch=LaunchConfig(**{"micro_batch_size": 16, "log_steps": 1, "checkpoint_steps": 3} | launch),
    )


def metrics(folder: Path, name: str = "loss") -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if name in line]


@pytest.fixture(scope="module")
def plain(policy, pairs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zero-0")
    train(folder, program(policy, pairs, measure(policy, pairs, folder), folder, held_out=True), PREFERENCE)
    return folder


def test_training_starts_at_log_ratios_of_zero_and_margins_grow(plain):
    lines = metrics(plain)
    assert len(lines) == 8
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[0]["rewards/margins"] == pytest.approx(0, abs=1e-3)
    assert lines[-1]["rewards/margins"] > 0.05
    assert lines[-1]["loss"] < lines[0]["loss"]
    names = {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "logps_per_token/chosen"}
    assert names | {"logps_per_token/rejected"} <= lines[0].keys()


def test_pairs_measured_meanwhile_have_metrics_of_their_own(plain, pairs):
    lines = metrics(plain, "held_out/loss")
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    after = list(read_rows(PairLikelihood, measure(plain / "policy", pairs, plain / "after")))
    ratios = log_ratios(after, read_rows(PairLikelihood, plain / "likelihood.parquet"))
    expected = preference_metrics(ratios, HYPERPARAMETERS.beta, HYPERPARAMETERS.loss)
    assert {name: lines[-1][f"held_out/{name}"] for name in expected} == pytest.approx(expected, abs=1e-3)


def test_likelihoods_are_in_the_order_of_the_pairs_and_count_answer_tokens(plain, pairs):
    rows = list(read_rows(PairLikelihood, plain / "likelihood.parquet"))
    assert [(r.problem_id, r.index) for r in rows] == [(p.problem_id, p.index) for p in read_rows(Pair, pairs)]
    assert all(r.chosen < 0 and r.rejected < 0 and r.chosen_tokens == r.rejected_tokens > 5 for r in rows)
    assert sum(r.chosen > r.rejected for r in rows) > len(rows) / 2


@pytest.mark.parametrize("launch", LAUNCHES)
def test_zero_stages_and_processes_agree_on_reference_and_losses(policy, pairs, plain, tmp_path, launch):
    for name in ("models", "data", "tasks"):  # the user's own, where the programs are started
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    reference = measure(policy, pairs, tmp_path, **launch)
    expected = list(read_rows(PairLikelihood, plain / "likelihood.parquet"))
    for found, wanted in zip(read_rows(PairLikelihood, reference), expected, strict=True):
        assert replace(found, chosen=0, rejected=0) == replace(wanted, chosen=0, rejected=0)
        assert [found.chosen, found.rejected] == pytest.approx([wanted.chosen, wanted.rejected], abs=1e-3)
    train(tmp_path, program(policy, pairs, reference, tmp_path, held_out=True, **launch), PREFERENCE)
    for name in ("loss", "held_out/loss"):
        ours, theirs = ([m[name] for m in metrics(folder, name)] for folder in (tmp_path, plain))
        assert ours == pytest.approx(theirs, abs=5e-4)


def test_training_killed_by_sigkill_goes_on_to_identical_weights(policy, pairs, plain, tmp_path):
    """And to those of a training that measures pairs meanwhile, which this one does not."""
    job = program(policy, pairs, plain / "likelihood.parquet", tmp_path)
    kill_at_checkpoint(tmp_path, job, PREFERENCE)
    assert not (tmp_path / "policy").exists()
    train(tmp_path, job, PREFERENCE, anew=True)
    assert file_sha256(tmp_path / "policy" / "model.safetensors") == file_sha256(plain / "policy" / "model.safetensors")
    assert [m["loss"] for m in metrics(tmp_path)] == [m["loss"] for m in metrics(plain)]
