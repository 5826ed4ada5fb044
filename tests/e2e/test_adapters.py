"""LoRA and QLoRA: SFT, merge, DPO, merge, from the command line; the merged policy answers as the adapter one does."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import add_fused_lm_head

from data.arithmetic import embedded_problems
from data.files import file_sha256
from data.render import answer_token_ids, prompt_token_ids
from data.rows import Problem, Sample
from data.storage import read_rows
from models.training.common import load_policy
from models.training.likelihood import log_probs_of
from tests.e2e.conftest import autodidact, generate
from tests.e2e.test_generate import write_program

SHARED = """
limit_validation: 24
limit_test: 24
limit_transfer: 24
generate: {max_tokens: 40, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
launch: {micro_batch_size: 16, log_steps: 1}
"""
ADAPTER = "{rank: 8, alpha: 16, dropout: 0.0, targets: [q_proj, v_proj, down_proj], quantize: true}"
SFT = f"""
limit: 256
train: {{learning_rate: 2.0e-3, batch_size: 16, epochs: 4, pack_to: 128, dtype: float32, adapter: {ADAPTER}}}
"""
DPO = f"train: {{learning_rate: 1.0e-3, batch_size: 16, epochs: 2, dtype: float32, adapter: {ADAPTER}}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    (folder / "sft.yaml").write_text(SHARED + SFT)
    (folder / "dpo.yaml").write_text(SHARED + DPO)
    with (folder / "pairs.jsonl").open("w") as file:
        for problem in [p for p in embedded_problems(0) if p.split == "demonstration"][:128]:
            prompt, gold = problem.messages[0]["content"], problem.response or ""
            file.write(json.dumps({"prompt": prompt, "chosen": gold, "rejected": f"{gold}0"}) + "\n")
    return folder


@pytest.fixture(scope="module")
def sft(folder: Path, policy: Path) -> Path:
    autodidact(folder, "sft", "--config", "sft.yaml", "--run", "sft", "--model", str(policy))
    return folder / "runs" / "sft" / "iter-1" / "train"


@pytest.fixture(scope="module")
def dpo(folder: Path, sft: Path, policy: Path) -> Path:
    start = ["--model", str(policy), "--adapter", str(sft / "adapter")]
    autodidact(folder, "dpo", "--config", "dpo.yaml", "--run", "dpo", *start, "--pairs", "pairs.jsonl")
    return folder / "runs" / "dpo" / "iter-1" / "train"


def lines(stage: Path) -> list[dict[str, float]]:
    found = (json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines())
    return [line for line in found if "loss" in line]  # others are of held-out rows


def test_qlora_learns_and_the_manifest_has_adapter_and_merged_policy(sft):
    losses = [line["loss"] for line in lines(sft)]
    epoch = len(losses) // 4
    assert sum(losses[-epoch:]) < sum(losses[:epoch])
    outputs = json.loads((sft / "manifest.json").read_text())["outputs"]
    assert {"adapter/adapter_model.safetensors", "adapter/adapter_config.json", "policy/model.safetensors"} <= set(
        outputs
    )
    assert json.loads((sft / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert "quantization_config" not in json.loads((sft / "policy" / "config.json").read_text())


def test_dpo_starts_at_log_ratios_of_zero_on_quantised_weights_too_and_margins_grow(dpo):
    found = lines(dpo)
    for side in ("chosen", "rejected"):  # β = 0.1 times nats; 4-bit products are rounded, quantising costs about 1
        assert found[0][f"rewards/{side}"] == pytest.approx(0, abs=5e-3)
    assert found[-1]["rewards/margins"] > 0.1
    assert found[-1]["rewards/accuracies"] > 0.9


def test_the_merged_policy_finds_answers_as_likely_as_the_adapter_policy(sft, policy, problems):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    worked = [p for p in problems if p.split == "demonstration"][-32:]
    sequences = [
        (prompt_token_ids(tokenizer, p.messages), answer_token_ids(tokenizer, p.response or "", None)) for p in worked
    ]
    quantised = load_policy(policy, "float32", quantize=True)
    add_fused_lm_head(quantised)
    with_adapter = PeftModel.from_pretrained(quantised, str(sft / "adapter")).eval()
    merged = AutoModelForCausalLM.from_pretrained(sft / "policy", dtype=torch.float32).eval()
    add_fused_lm_head(merged)
    found, expected = (log_probs_of(model, sequences, 0, "cpu") for model in (merged, with_adapter))
    assert found == pytest.approx(expected, abs=0.2)


def test_the_merged_policy_answers_in_vllm_as_the_adapter_policy_does(dpo, sft, problems: list[Problem], tmp_path):
    chosen = [p for p in problems if p.split == "validation"][:24]
    generate(write_program(tmp_path, dpo / "policy", chosen, 1, 0.0))
    tokenizer = AutoTokenizer.from_pretrained(dpo / "policy")
    model = PeftModel.from_pretrained(load_policy(sft / "policy", "float32", quantize=True), str(dpo / "adapter"))
    parted = 0
    for problem, sample in zip(chosen, read_rows(Sample, tmp_path / "samples"), strict=True):
        ids = torch.tensor([prompt_token_ids(tokenizer, problem.messages)])
        with torch.no_grad():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=40,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        answer = out.sequences[0, ids.shape[1] :].tolist()
        pairs = zip(answer, sample.token_ids, out.logits, strict=False)
        first = next(((ours, theirs, logits[0]) for ours, theirs, logits in pairs if ours != theirs), None)
        if first is None:
            assert answer == sample.token_ids
        else:  # they part only where the two tokens are as good as each other, within what rounding takes
            ours, theirs, logits = first
            assert logits[ours] - logits[theirs] <= 0.2
            parted += 1
    assert parted <= 4


def test_an_adapter_given_with_its_model_is_merged_first_as_it_was_after_its_training(dpo, sft):
    base = dpo.parents[1] / "base" / "policy"
    assert file_sha256(base / "model.safetensors") == file_sha256(sft / "policy" / "model.safetensors")
