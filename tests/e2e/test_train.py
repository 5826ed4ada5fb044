"""Real training: ZeRO stages agree, more processes agree, and a killed training goes on to the same bytes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.files import file_sha256
from data.rows import Example, GoldLikelihood, Problem
from data.storage import read_rows, write_rows
from models.config import LaunchConfig, LikelihoodProgram, SupervisedConfig, TrainProgram
from models.launch import LIKELIHOOD, SUPERVISED, launch_command
from models.training.common import IGNORED, last_checkpoint
from models.training.supervised import encode
from tests.e2e.conftest import kill_at_checkpoint, train, write_config
from tests.waiting import PATIENCE

HYPERPARAMETERS = SupervisedConfig(learning_rate=1e-3, epochs=1, batch_size=32, dtype="float32")
HELD_OUT = "held_out/loss"


def program(policy: Path, examples: Path, folder: Path, held_out: Path | None = None, **launch: int) -> TrainProgram:
    settings = LaunchConfig(**{"micro_batch_size": 16, "log_steps": 1, "checkpoint_steps": 4} | launch)
    return TrainProgram(
        policy=policy,
        examples=[examples],
        held_out=held_out,
        output=folder / "policy",
        seed=1,
        train=HYPERPARAMETERS,
        launch=settings,
    )


def losses(folder: Path, name: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in lines if name in line]


@pytest.fixture(scope="module")
def held_out(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gold answers of which neither a batch nor two processes take an even share."""
    file = tmp_path_factory.mktemp("held-out") / "gold.parquet"
    write_rows(Problem, file, [p for p in problems if p.split == "demonstration"][512:549])
    return file


@pytest.fixture(scope="module")
def plain(policy: Path, examples: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zero-0")
    train(folder, program(policy, examples, folder, held_out, zero_stage=0))
    return folder


@pytest.mark.parametrize(
    "launch",
    [
        pytest.param({"zero_stage": 1}, marks=pytest.mark.nightly),
        pytest.param({"zero_stage": 2}, marks=pytest.mark.nightly),
        pytest.param({"zero_stage": 3}, marks=pytest.mark.nightly),
        pytest.param({"zero_stage": 2, "offload": "optimizer"}, marks=pytest.mark.nightly),
        {"zero_stage": 3, "offload": "all", "gradient_checkpointing": True},
        {"processes": 2, "micro_batch_size": 8},
    ],
)
def test_zero_stages_and_processes_give_the_same_losses(policy, examples, held_out, plain, tmp_path, launch):
    train(tmp_path, program(policy, examples, tmp_path, held_out, **launch))
    assert len(losses(plain)) == 16
    assert losses(tmp_path) == pytest.approx(losses(plain), abs=2e-4)
    assert len(losses(plain, HELD_OUT)) == 4
    assert losses(tmp_path, HELD_OUT) == pytest.approx(losses(plain, HELD_OUT), abs=2e-4)


@pytest.mark.parametrize("launch", [{"zero_stage": 3}, {"processes": 2, "micro_batch_size": 8}])
def test_the_loss_of_held_out_answers_is_that_of_the_policy_afterwards(plain, held_out, tmp_path, launch):
    measuring = LikelihoodProgram(
        policy=plain / "policy",
        gold=[held_out],
        gold_outputs=[tmp_path / "gold.parquet"],
        dtype="float32",
        quantize=False,
        launch=LaunchConfig(**{"micro_batch_size": 4} | launch),
    )
    train(tmp_path, measuring, LIKELIHOOD)
    rows = list(read_rows(GoldLikelihood, tmp_path / "gold.parquet"))
    assert [row.problem_id for row in rows] == [problem.id for problem in read_rows(Problem, held_out)]
    expected = -sum(row.log_prob for row in rows) / sum(row.tokens for row in rows)
    assert losses(plain, HELD_OUT)[-1] == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_the_reward_weighted_one_of_plain_pytorch(policy, examples, tmp_path):
    """All 512 examples, with weights of 1 and 2, in one optimizer step of 32 accumulated batches."""
    job = program(policy, examples, tmp_path)
    train(tmp_path, job.model_copy(update={"train": HYPERPARAMETERS.model_copy(update={"batch_size": 512})}))
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for example in read_rows(Example, examples):
            row = encode(tokenizer, example, 1024)
            ids = torch.tensor([row["input_ids"]])
            answer = sum(label != IGNORED for label in row["labels"])
            log_probs = model(ids).logits[0, -answer - 1 : -1].log_softmax(-1)
            total -= row["weights"][0] * log_probs.gather(1, ids[0, -answer:, None]).sum().item()
            tokens += answer
    assert losses(tmp_path) == pytest.approx([total / tokens], rel=1e-4)


def test_training_killed_by_sigkill_goes_on_to_identical_weights(policy, examples, held_out, plain, tmp_path):
    job = program(policy, examples, tmp_path, held_out, zero_stage=0)
    kill_at_checkpoint(tmp_path, job)
    assert not (tmp_path / "policy").exists()
    assert last_checkpoint(tmp_path / ".checkpoints") is not None
    train(tmp_path, job, anew=True)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert file_sha256(tmp_path / "policy" / name) == file_sha256(plain / "policy" / name), name
    assert losses(tmp_path) == losses(plain)
    assert losses(tmp_path, HELD_OUT) == losses(plain, HELD_OUT)
    shutil.rmtree(tmp_path / ".checkpoints")


def test_the_last_that_a_program_says_is_why_it_failed(examples, tmp_path):
    config = write_config(tmp_path, program(tmp_path / "missing", examples, tmp_path))
    command = launch_command(SUPERVISED, LaunchConfig(), config)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert str(tmp_path / "missing") in done.stderr.splitlines()[-1]


def test_the_checkpoint_carries_tokenizer_and_template(plain):
    tokenizer = AutoTokenizer.from_pretrained(plain / "policy")
    assert "<|assistant|>" in tokenizer.chat_template
