"""Kinds of fine-tuning in real training: killed, resumed, under ZeRO, in the online flows, and served by vLLM."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from transformers import AutoTokenizer

from benchmarks.adapters import write_biased
from data.arithmetic import embedded_problems
from data.files import file_sha256
from data.render import prompt_token_ids
from data.rows import Problem, Sample
from data.storage import read_rows, write_rows
from models.adapters.settings import UNMERGED
from models.config import LaunchConfig, SupervisedConfig, TrainProgram
from models.launch import ON_POLICY
from models.loading import load_weights
from models.training.common import last_checkpoint
from tests.e2e import test_grpo
from tests.e2e.conftest import autodidact, generate, kill_at_checkpoint, train
from tests.e2e.test_generate import write_program
from tests.e2e.test_train import losses

WEIGHTS = "adapter/adapter_model.safetensors"
KINDS: dict[str, tuple[float, dict[str, Any]]] = {  # with their learning rates
    "dora": (2e-3, {"dora": True, "dropout": 0.0}),
    "rslora": (1e-3, {"rslora": True, "dropout": 0.0}),
    "adalora": (1e-2, {"kind": "adalora", "adalora": {"interval": 2}}),
    "ia3": (1e-2, {"kind": "ia3"}),
    "bitfit": (1e-2, {"kind": "bitfit"}),
    "diff-pruning": (1e-3, {"kind": "diff-pruning", "diff_pruning": {"density": 0.02}}),
    "prompt": (1e-2, {"kind": "prompt", "prompt": {"tokens": 8}}),
    "p-tuning": (1e-3, {"kind": "p-tuning", "p_tuning": {"tokens": 8}}),
    "prefix": (1e-3, {"kind": "prefix", "prefix": {"tokens": 8}}),
    "bottleneck": (1e-3, {"kind": "bottleneck"}),
}
ALWAYS = ("lora", "prompt", "bottleneck")
EVERY = [pytest.param(kind, marks=[] if kind == "adalora" else pytest.mark.nightly) for kind in KINDS]


@pytest.fixture(scope="session")
def biased(policy: Path, shared: Path) -> Path:
    """The tiny policy with biases of zero, which change nothing."""
    folder = shared / "biased"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            write_biased(policy, folder)
    return folder


def start_of(kind: str, policy: Path, biased: Path) -> Path:
    return biased if kind == "bitfit" else policy


def program(kind: str, start: Path, examples: Path, folder: Path, **launch: Any) -> TrainProgram:
    rate, told = KINDS[kind]
    how = {"learning_rate": rate, "epochs": 2, "batch_size": 32, "dtype": "float32", "adapter": told}
    settings = LaunchConfig(**{"micro_batch_size": 16, "log_steps": 1, "checkpoint_steps": 4} | launch)
    return TrainProgram(
        policy=start,
        examples=[examples],
        output=folder / "policy",
        seed=1,
        train=SupervisedConfig.model_validate(how),
        launch=settings,
    )


def learned(folder: Path) -> bool:
    """Whether the second pass over the examples has lower losses than the first."""
    found = losses(folder)
    half = len(found) // 2
    return half == 16 and sum(found[half:]) < sum(found[:half])


@pytest.mark.parametrize("kind", EVERY)
def test_killed_it_goes_on_to_the_same_adapter(kind, policy, biased, examples, tmp_path):
    start, whole, killed = start_of(kind, policy, biased), tmp_path / "whole", tmp_path / "killed"
    train(whole, program(kind, start, examples, whole))
    assert learned(whole)
    job = program(kind, start, examples, killed)
    kill_at_checkpoint(killed, job)
    assert last_checkpoint(killed / ".checkpoints") is not None
    train(killed, job, anew=True)
    assert file_sha256(killed / WEIGHTS) == file_sha256(whole / WEIGHTS)
    assert losses(killed) == losses(whole)


@pytest.mark.nightly
@pytest.mark.parametrize("launch", [{"zero_stage": 1}, {"zero_stage": 2}, {"processes": 2, "micro_batch_size": 8}])
@pytest.mark.parametrize("kind", KINDS)
def test_zero_stages_and_processes_learn_the_same(kind, launch, policy, biased, examples, tmp_path):
    start, plain, spread = start_of(kind, policy, biased), tmp_path / "plain", tmp_path / "spread"
    train(plain, program(kind, start, examples, plain))
    train(spread, program(kind, start, examples, spread, **launch))
    assert losses(spread) == pytest.approx(losses(plain), abs=2e-3)
    ours, theirs = load_file(spread / WEIGHTS), load_file(plain / WEIGHTS)
    if kind == "adalora":  # the same ranks stay
        assert {name: len(value) for name, value in ours.items()} == {
            name: len(value) for name, value in theirs.items()
        }
    elif kind != "diff-pruning":  # where rounding decides which numbers are the largest
        assert all((ours[name] - theirs[name]).abs().max() < 1e-2 for name in theirs)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "diff-pruning"])
def test_on_four_bit_weights_too(kind, policy, biased, examples, tmp_path):
    job = program(kind, start_of(kind, policy, biased), examples, tmp_path)
    adapter = job.train.adapter.model_copy(update={"quantize": True})
    train(tmp_path, job.model_copy(update={"train": job.train.model_copy(update={"adapter": adapter})}))
    assert learned(tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_online_the_engine_answers_as_the_trainer_computes(kind, policy, biased, problems, tmp_path):
    asked = tmp_path / "problems.parquet"
    write_rows(Problem, asked, [p for p in problems if p.split == "train"][:40])
    rate, told = KINDS[kind]
    start = start_of(kind, policy, biased)
    job = test_grpo.program(tmp_path / "whole", start, asked, adapter=told)
    job = job.model_copy(update={"train": job.train.model_copy(update={"learning_rate": rate})})
    train(tmp_path / "whole", job, ON_POLICY)
    seen = test_grpo.seen(tmp_path / "whole", "drift", "kl")
    assert all(0 < drift < 1e-4 for drift, _ in seen)
    if kind not in UNMERGED or kind == "bottleneck":  # the others are no identity
        assert abs(seen[0][1]) < 1e-6  # the reference is the policy without it
    assert seen[-1][1] > 1e-6
    twice = test_grpo.in_two_iterations(tmp_path / "twice", job)
    assert file_sha256(twice / WEIGHTS) == file_sha256(tmp_path / "whole" / WEIGHTS)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[] if k in ALWAYS else pytest.mark.nightly) for k in ("lora", *KINDS)],
)
def test_an_iteration_of_rest_em_and_the_policy_answers_as_transformers(kind, policy, biased, problems, tmp_path):
    rate, told = KINDS.get(kind, (1e-3, {}))
    (tmp_path / "settings.yaml").write_text(
        f"""
limit: 48
limit_validation: 16
limit_test: 16
limit_transfer: 16
iterations: 1
generate: {{samples: 4, max_tokens: 40, dtype: float32}}
evaluate: {{samples: 2, pass_at: [1, 2]}}
launch: {{micro_batch_size: 16}}
train: {{learning_rate: {rate}, epochs: 2, batch_size: 16, dtype: float32, adapter: {json.dumps(told)}}}
"""
    )
    start = start_of(kind, policy, biased)
    autodidact(tmp_path, "rest-em", "--config", "settings.yaml", "--run", "em", "--model", str(start))
    made = tmp_path / "runs/em/iter-1/train"
    assert (made / "policy/adapter").exists() == (kind in UNMERGED)
    chosen = [p for p in problems if p.split in ("validation", "test")][:200]
    generate(write_program(tmp_path, made / "policy", chosen, 1, 0.0))
    model = load_weights("AutoModelForCausalLM", made / "policy", "refuse", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(made / "policy")
    for problem, sample in zip(chosen, read_rows(Sample, tmp_path / "samples"), strict=True):
        prompt = prompt_token_ids(tokenizer, problem.messages)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + sample.token_ids])).logits[0, len(prompt) - 1 : -1]
        best = logits.max(dim=-1).values
        taken = logits.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
        assert (best - taken).max() < 1e-4  # each token is as good as the best


@pytest.mark.nightly
@pytest.mark.parametrize("kind", UNMERGED)
def test_spin_goes_on_with_the_adapter_of_the_iteration_before(kind, policy, tmp_path):
    rate, told = KINDS[kind]
    (tmp_path / "settings.yaml").write_text(
        f"""
limit: 32
limit_validation: 16
limit_test: 16
limit_transfer: 16
iterations: 2
stop: {{rule: none}}
generate: {{max_tokens: 40, dtype: float32}}
evaluate: {{samples: 2, pass_at: [1, 2]}}
launch: {{micro_batch_size: 16, log_steps: 1}}
train: {{learning_rate: {rate}, epochs: 1, batch_size: 16, dtype: float32, adapter: {json.dumps(told)}}}
"""
    )
    autodidact(tmp_path, "spin", "--config", "settings.yaml", "--run", "spin", "--model", str(policy))
    run = tmp_path / "runs/spin"
    first, second = (file_sha256(run / f"iter-{number}/train" / WEIGHTS) for number in (1, 2))
    assert first != second
    if kind == "bottleneck":
        lines = [json.loads(line) for line in (run / "iter-1/train/metrics.jsonl").read_text().splitlines()]
        found = next(line for line in lines if "rewards/chosen" in line)
        assert found["rewards/chosen"] == pytest.approx(0, abs=1e-3)
    # The reference is the policy before, with its adapter: log-ratios begin at 0.
    lines = [json.loads(line) for line in (run / "iter-2/train/metrics.jsonl").read_text().splitlines()]
    found = next(line for line in lines if "rewards/chosen" in line)
    assert found["rewards/chosen"] == pytest.approx(0, abs=1e-3)
    assert found["rewards/rejected"] == pytest.approx(0, abs=1e-3)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["ia3", "prompt", "bottleneck"])
def test_a_reward_model_has_its_adapter_when_it_scores(kind, policy, tmp_path):
    rate, told = KINDS[kind]
    rows = [p for p in embedded_problems(0) if p.split == "demonstration"][:160]
    with (tmp_path / "pairs.jsonl").open("w") as file:
        for problem in rows:
            prompt, gold = problem.messages[0]["content"], problem.response or ""
            file.write(json.dumps({"prompt": prompt, "chosen": gold, "rejected": f"{gold}0"}) + "\n")
    (tmp_path / "settings.yaml").write_text(
        f"""
launch: {{micro_batch_size: 16}}
train: {{learning_rate: {rate}, epochs: 4, batch_size: 16, dtype: float32, adapter: {json.dumps(told)}}}
"""
    )
    told = ["--config", "settings.yaml", "--model", str(policy), "--pairs", "pairs.jsonl", "--run", "rm"]
    autodidact(tmp_path, "reward-model", *told)
    stages = tmp_path / "runs/rm/iter-1"
    scored = json.loads((stages / "measure/metrics.json").read_text())
    measured = json.loads((stages / "train/metrics.jsonl").read_text().splitlines()[-1])  # while it was trained
    assert scored["margin"] == pytest.approx(measured["held_out/margin"], rel=0.02)  # scored in bfloat16
    assert scored["accuracy"]["value"] > 0.8


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["adalora", "ia3", "bitfit", "prompt", "bottleneck"])
def test_in_four_and_sixteen_bits_from_the_command_line(kind, policy, biased, tmp_path):
    """SFT's defaults: bfloat16, on weights in 4 bits, which what is served has dequantized."""
    rate, told = KINDS[kind]
    (tmp_path / "settings.yaml").write_text(
        f"""
limit: 64
limit_validation: 16
limit_test: 16
limit_transfer: 16
generate: {{max_tokens: 40, dtype: float32}}
evaluate: {{samples: 2, pass_at: [1, 2]}}
launch: {{micro_batch_size: 8, evaluations: 1}}
train: {{learning_rate: {rate}, pack_to: null, adapter: {json.dumps(told)}}}
"""
    )
    start = start_of(kind, policy, biased)
    autodidact(tmp_path, "sft", "--config", "settings.yaml", "--run", "sft", "--model", str(start))
    made = tmp_path / "runs/sft/iter-1/train"
    assert json.loads((made / "adapter/base.json").read_text())["quantize"]
    ours = load_file(made / "policy/model.safetensors")["model.layers.0.self_attn.o_proj.weight"].float()
    theirs = load_file(start / "model.safetensors")["model.layers.0.self_attn.o_proj.weight"].float()
    assert 1e-4 < (ours - theirs).abs().max() < 0.2  # 4 bits, dequantized
