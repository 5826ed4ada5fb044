"""Adapters that stay beside the weights: the policy's folder, its digest, what goes on with it, and what cannot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from data.errors import AutodidactError
from deployments.serve import serve
from flows.dpo import DPO
from flows.rlhf import RLHF
from flows.sft import SFT
from flows.spin import Spin
from models.config import TrainConfig
from models.loading import kind_beside, load_config, unmerged, virtual_tokens
from tasks.policies.adapter import AdapterError, check_continued, put_beside
from tasks.policies.model_folder import folder_digest, model_files
from tasks.stage.freed import weights_of

PROMPT = {"kind": "prompt", "prompt": {"tokens": 5}}
OTHER = {"kind": "prompt", "prompt": {"tokens": 6}}


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A policy made of a base and an adapter."""
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, names in ((base, ("config.json", "model.safetensors", "tokenizer.json")), (adapter, ())):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("{}")
    told = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5, "settings": PROMPT | {"quantize": False}}
    (adapter / "adapter_config.json").write_text(json.dumps(told))
    (adapter / "adapter_model.safetensors").write_text("")
    save_file({"weight": np.zeros(1, dtype=np.float32)}, base / "model.safetensors")
    put_beside(base, adapter, tmp_path / "policy")
    return tmp_path / "policy"


def test_a_policy_is_its_base_without_a_copy_and_the_adapter(policy: Path) -> None:
    weights = policy / "model.safetensors"
    assert weights.samefile(policy.with_name("base") / "model.safetensors")
    assert unmerged(policy) == policy / "adapter" and unmerged(policy.with_name("base")) is None
    assert (kind_beside(policy / "adapter"), virtual_tokens(policy)) == ("prompt", 5)
    names = [file.relative_to(policy).as_posix() for file in model_files(policy)]
    assert names == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", *sorted(names[2:])]
    put_beside(policy, policy.with_name("adapter"), policy.with_name("next"))  # the next iteration's
    assert folder_digest(policy.with_name("next")) == folder_digest(policy)
    (policy.with_name("next") / "adapter/adapter_model.safetensors").write_text("other")
    assert folder_digest(policy.with_name("next")) != folder_digest(policy) != folder_digest(policy.with_name("base"))


@pytest.mark.parametrize(
    ("adapter", "fits"),
    [(PROMPT, True), (PROMPT | {"quantize": True}, True), (OTHER, False), ({}, False), (None, False)],
)
def test_training_goes_on_with_the_adapter_or_is_refused(policy: Path, adapter: Any, fits: bool) -> None:
    trained = {"train": TrainConfig.model_validate({"adapter": adapter})}
    if fits:
        check_continued(policy, trained)
    else:
        with pytest.raises(AdapterError, match=r"an adapter of the kind prompt beside its weights, but train\.adapter"):
            check_continued(policy, trained)
    check_continued(policy.with_name("base"), trained)


def test_virtual_tokens_need_rows_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"Set train\.pack_to to none"):
        SFT.model_validate({"train": {"adapter": PROMPT}})
    assert SFT.model_validate({"train": {"adapter": PROMPT, "pack_to": None}}).trained


def test_all_training_in_a_run_goes_on_with_one_adapter() -> None:
    told = {"pairs": "pairs.jsonl", "demonstrations": "rows.jsonl"}
    with pytest.raises(ValueError, match=r"Give sft_train\.adapter, train\.adapter, reward_train\.adapter the same"):
        RLHF.model_validate(told | {"train": {"adapter": PROMPT}, "sft_train": {"adapter": OTHER}})
    same = {name: {"adapter": PROMPT} for name in ("train", "sft_train", "reward_train")}
    assert RLHF.model_validate(told | same).trained
    assert DPO.model_validate({"pairs": "pairs.jsonl", "train": {"adapter": PROMPT}}).trained


def test_keys_in_front_are_not_there_when_layers_are_computed_again() -> None:
    told = {"train": {"adapter": {"kind": "prefix"}}}
    assert Spin.model_validate(told).trained
    with pytest.raises(ValueError, match=r"launch\.gradient_checkpointing recomputes"):
        Spin.model_validate(told | {"launch": {"gradient_checkpointing": True}})


def test_a_reward_models_configuration_says_what_it_is(policy: Path) -> None:
    base, made = policy.with_name("base"), policy.with_name("reward")
    (base / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}))
    put_beside(base, policy.with_name("adapter"), made, reward=True)
    kind = load_config(made, "refuse")
    assert (kind.architectures, kind.num_labels) == (["LlamaForSequenceClassification"], 1)
    assert json.loads((base / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_another_librarys_adapter_in_a_models_folder_is_not_taken_for_one(policy: Path) -> None:
    for content in ("{}", "[]", "{", json.dumps({"peft_type": "LORA"})):
        (policy / "adapter/adapter_config.json").write_text(content)
        assert unmerged(policy) is None and virtual_tokens(policy) == 0


def test_its_shared_weights_are_not_freed(policy: Path) -> None:
    assert weights_of(policy.parent) == []
    (policy / "model.safetensors").unlink()
    (policy / "model.safetensors").write_text("its own")
    assert weights_of(policy.parent) == [policy / "model.safetensors"]


def test_vllms_server_does_not_serve_it(policy: Path) -> None:
    with pytest.raises(AutodidactError, match="has an adapter beside its weights"):
        serve([str(policy)])
