"""A real reward model: TRL's RewardTrainer on DeepSpeed learns pairs, and scores alone as in batches."""

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer

from data.calibration import reward_metrics
from data.files import file_sha256
from data.render import judged_token_ids
from data.rows import Pair, PairReward, Problem
from data.storage import read_rows, write_rows
from models import tiny
from models.adapters.settings import AdapterConfig
from models.config import (
    LaunchConfig,
    PairScoreJob,
    RewardScoreProgram,
    RewardTrainConfig,
    RewardTrainProgram,
    ScoringConfig,
)
from models.launch import REWARD
from models.training.common import load_policy, load_reward_model
from tasks.policies.adapter import merge, record_base
from tests.e2e.conftest import kill_at_checkpoint, train
from tests.e2e.programs import run_program
from tests.forks import REWARD_SCORE

MARGIN, CENTERING = 0.5, 0.1
HYPERPARAMETERS = RewardTrainConfig(
    margin=MARGIN, centering=CENTERING, learning_rate=1e-3, epochs=6, batch_size=16, dtype="float32"
)
LORA = AdapterConfig(rank=8, alpha=16, targets=("q_proj", "v_proj", "down_proj"))


def make_pairs(problems: list[Problem], start: int, stop: int) -> list[Pair]:
    """Gold answers over ones that say nothing: what a tiny model can learn to tell apart from a few dozen pairs."""
    rng = random.Random(start)
    worked = [p for p in problems if p.split == "demonstration"][start:stop]
    return [
        Pair(p.id, 0, p.messages, p.response or "", " ".join("no idea".split() * rng.randint(1, 6)), None, None, "", "")
        for p in worked
    ]


@pytest.fixture(scope="module")
def files(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    held_out = make_pairs(problems, 48, 80)
    write_rows(Pair, folder / "pairs.parquet", make_pairs(problems, 0, 48))
    write_rows(Pair, folder / "held-out.parquet", held_out)
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in held_out]
    write_rows(Pair, folder / "swapped.parquet", swapped)
    return folder


@pytest.fixture(scope="module")
def policy(files: Path, problems: list[Problem]) -> Path:
    """A policy with random weights: what is tested here needs no trained one."""
    folder = files / "policy"
    texts = [t for p in problems if p.split == "demonstration" for t in (p.messages[0]["content"], p.response or "")]
    tiny.write_untrained(folder, texts)
    torch.manual_seed(0)
    load_policy(folder, "float32").save_pretrained(folder)
    return folder


def program(policy: Path, files: Path, folder: Path, adapter: AdapterConfig | None = None) -> RewardTrainProgram:
    return RewardTrainProgram(
        policy=policy,
        pairs=[files / "pairs.parquet"],
        held_out=files / "held-out.parquet",
        output=folder / "policy",
        seed=1,
        train=HYPERPARAMETERS.model_copy(update={"adapter": adapter}),
        launch=LaunchConfig(micro_batch_size=16, log_steps=1, checkpoint_steps=3, zero_stage=2),
    )


def lines(folder: Path, name: str = "loss") -> list[dict[str, float]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if name in line]


@pytest.fixture(scope="module")
def trained(policy: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    train(folder, program(policy, files, folder), REWARD)
    return folder


@pytest.fixture(scope="module")
def rewards(trained: Path, files: Path) -> Path:
    """The rewards of the held-out pairs, of the same with their sides swapped, and of those trained on."""
    names = ("held-out", "swapped", "pairs")
    scoring = RewardScoreProgram(
        model=trained / "policy",
        pair_jobs=[PairScoreJob(pairs=files / f"{n}.parquet", output=trained / f"{n}.parquet") for n in names],
        scoring=ScoringConfig(dtype="float32", batch_tokens=512),
    )
    (trained / "score.json").write_text(scoring.model_dump_json())
    assert "100%" in run_program(REWARD_SCORE, trained / "score.json")
    return trained


def test_the_loss_falls_and_the_rates_are_logged(trained):
    found = lines(trained)
    assert len(found) == 18
    assert found[-1]["loss"] < found[0]["loss"] / 2
    assert found[-1]["accuracy"] == 1.0 and found[-1]["margin"] > MARGIN
    assert {"mean_reward", "min_reward", "max_reward"} <= found[0].keys()


def test_held_out_pairs_are_told_apart_and_swapped_sides_give_the_mirrored_result(rewards, files):
    ours, swapped = (list(read_rows(PairReward, rewards / f"{name}.parquet")) for name in ("held-out", "swapped"))
    pairs = list(read_rows(Pair, files / "held-out.parquet"))
    assert [(row.problem_id, row.index) for row in ours] == [(pair.problem_id, pair.index) for pair in pairs]
    for one, other in zip(ours, swapped, strict=True):
        assert (one.chosen_tokens, one.rejected_tokens) == (other.rejected_tokens, other.chosen_tokens)
        assert [one.chosen, one.rejected] == pytest.approx([other.rejected, other.chosen], abs=1e-5)
    metrics, mirrored = reward_metrics(ours, 0), reward_metrics(swapped, 0)
    meanwhile = lines(rewards, "held_out/loss")
    assert len(meanwhile) == 4
    assert meanwhile[-1]["held_out/accuracy"] == pytest.approx(metrics.accuracy.value)
    assert meanwhile[-1]["held_out/margin"] == pytest.approx(metrics.margin, abs=1e-4)
    assert metrics.accuracy.low > 0.5 and metrics.loss < math.log(2)
    assert mirrored.accuracy.value == pytest.approx(1 - metrics.accuracy.value)
    assert mirrored.margin == pytest.approx(-metrics.margin, abs=1e-5)


def test_the_checkpoint_is_a_plain_classifier_with_its_tokenizer(trained):
    config = AutoConfig.from_pretrained(trained / "policy")
    assert (config.architectures, config.num_labels) == (["LlamaForSequenceClassification"], 1)
    tokenizer = AutoTokenizer.from_pretrained(trained / "policy")
    assert tokenizer.chat_template and config.pad_token_id == tokenizer.pad_token_id


def test_training_killed_by_sigkill_goes_on_to_identical_weights(policy, files, trained, tmp_path):
    job = program(policy, files, tmp_path)
    kill_at_checkpoint(tmp_path, job, REWARD)
    assert not (tmp_path / "policy").exists()
    train(tmp_path, job, REWARD, anew=True)
    weights = Path("policy") / "model.safetensors"
    assert file_sha256(tmp_path / weights) == file_sha256(trained / weights)
    assert [line["loss"] for line in lines(tmp_path)] == [line["loss"] for line in lines(trained)]


def test_an_adapter_is_merged_with_its_head_into_a_plain_checkpoint(policy, files, tmp_path):
    job = program(policy, files, tmp_path, LORA)
    train(tmp_path, job, REWARD)
    adapter = tmp_path / "adapter"
    record_base(adapter, policy, job.train)
    merge(policy, adapter, tmp_path / "policy", tmp_path / ".lock", reward=True)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    trained = PeftModel.from_pretrained(load_reward_model(policy, tokenizer, "float32"), str(adapter)).eval()
    merged = load_reward_model(tmp_path / "policy", tokenizer, "float32").eval()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    for pair in list(read_rows(Pair, files / "pairs.parquet"))[:8]:
        prompt, answer = judged_token_ids(tokenizer, pair.messages, pair.chosen)
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            assert merged(ids).logits.item() == pytest.approx(trained(ids).logits.item(), abs=1e-4)
    assert lines(tmp_path)[-1]["accuracy"] > 0.9
