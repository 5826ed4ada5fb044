"""How many parameters a model has, and what memory it takes, against figures worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from models import tiny
from models.adapters.settings import AdapterConfig
from models.config import Dtype, EngineConfig, LaunchConfig, SupervisedConfig, TrainConfig
from models.estimate import (
    activation_bytes,
    cache_bytes_per_token,
    generation_bytes_per_device,
    parameters_of,
    training_bytes_per_device,
    weights_bytes_per_device,
)
from tasks.policies.train import decided
from tasks.rollouts.rewards import Judging, RewardConfig, judging_estimate
from tasks.stage.contract import Artifact, Estimate
from tasks.stage.launch import Training
from tasks.stage.run import Run


def write_weights(path: Path, shapes: dict[str, list[int]]) -> None:
    save_file({name: np.zeros(shape, dtype=np.float16) for name, shape in shapes.items()}, path, {"format": "pt"})


def test_parameters_are_counted_from_the_headers_of_all_shards(tmp_path: Path) -> None:
    write_weights(tmp_path / "model-1.safetensors", {"embedding": [512, 128], "norm": [128], "scalar": []})
    write_weights(tmp_path / "model-2.safetensors", {"head": [3, 5, 7]})
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert parameters_of(tmp_path) == 512 * 128 + 128 + 1 + 105
    assert parameters_of(str(tmp_path)) == parameters_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen2.5-7B", 7_000_000_000),
        ("Qwen/Qwen2.5-0.5B-Instruct", 500_000_000),
        ("EleutherAI/pythia-160m", 160_000_000),
        ("facebook/opt-1.3b", 1_300_000_000),
        ("meta-llama/Llama-2-70b-hf", 70_000_000_000),
        ("openai-community/gpt2", None),
        ("organisation/model-4bit", None),
        ("organisation/v2.5", None),
    ],
)
def test_parameters_are_read_from_a_name_where_there_are_no_files(name: str, parameters: int | None) -> None:
    assert parameters_of(name) == parameters


def test_the_size_of_the_embedded_model_is_what_its_architecture_comes_to() -> None:
    hidden, inner, layers, vocabulary = 128, 384, 4, tiny.VOCABULARY
    attention = 4 * hidden * hidden
    layer = attention + 3 * hidden * inner + 2 * hidden
    assert vocabulary * hidden + layers * layer + hidden == tiny.PARAMETERS


ONE = 1_000_000_000


@pytest.mark.parametrize(
    ("train", "launch", "expected"),
    [
        # Weights, gradients, and at last moments, what an update takes, master weights and wide gradients.
        ({}, {"zero_stage": 0, "processes": 1}, 2 + 2 + (8 + 0 + 4 + 4)),
        ({}, {"zero_stage": 0, "processes": 8}, 2 + 2 + (8 + 0 + 4 + 4)),
        ({}, {"zero_stage": 1, "processes": 8}, 2 + 2 + (8 + 2 + 4 + 4) / 8),
        ({}, {"zero_stage": 2, "processes": 8}, 2 + (2 + 8 + 2 + 4 + 4) / 8),
        ({}, {"zero_stage": 3, "processes": 8}, (2 + 2 + 8 + 2 + 4 + 4) / 8),
        ({}, {"zero_stage": 2, "processes": 8, "offload": "optimizer"}, 2 + 2 / 8),
        ({}, {"zero_stage": 3, "processes": 8, "offload": "all"}, 2),  # a billion of parameters at a time
        ({"adapter": {}}, {"zero_stage": 3, "offload": "all"}, 2),
        ({"dtype": "float32"}, {"zero_stage": 0}, 4 + 4 + 8),
        ({"dtype": "float32"}, {"zero_stage": 2, "processes": 4}, 4 + (4 + 8 + 4 + 4) / 4),
        ({"optimizer": "rmsprop"}, {"zero_stage": 0}, 2 + 2 + (4 + 4 + 4 + 4)),
        ({"optimizer": "rmsprop", "dtype": "float32"}, {"zero_stage": 0}, 4 + 4 + (4 + 4)),
        ({"optimizer": "rmsprop", "dtype": "float32"}, {"zero_stage": 1, "processes": 2}, 4 + 4 + (4 + 4 + 4 + 4) / 2),
    ],
)
def test_training_memory_per_device_follows_zero(
    train: dict[str, Any], launch: dict[str, Any], expected: float
) -> None:
    config, devices = TrainConfig.model_validate(train), LaunchConfig.model_validate(launch)
    assert training_bytes_per_device(ONE, config, devices) == expected * ONE


@pytest.mark.parametrize(
    ("train", "stage", "held"),
    [
        ({}, 0, 20.4),
        ({}, 2, 22.1),
        ({}, 3, 23.3),
        ({"dtype": "float32"}, 2, 24.1),
        ({"optimizer": "rmsprop"}, 2, 20.1),
    ],
)
def test_training_memory_is_what_a_gpu_held(train: dict[str, str], stage: int, held: float) -> None:
    """Bytes per weight that `python -m benchmarks memory` printed on H200 and H100, with few activations."""
    found = training_bytes_per_device(ONE, TrainConfig.model_validate(train), LaunchConfig(zero_stage=stage))
    assert found is not None
    assert 0.94 * held < found / ONE <= held


@pytest.mark.parametrize(
    ("dtype", "checkpointing", "tokens", "held"),
    [
        ("bfloat16", False, 4_000, 22.1),
        ("bfloat16", False, 16_000, 44.8),
        ("bfloat16", True, 16_000, 20.4),
        ("bfloat16", True, 64_000, 28.9),
        ("float32", False, 4_000, 26.5),
        ("float32", False, 8_000, 40.0),
    ],
)
def test_with_activations_it_is_near_what_a_gpu_held(
    dtype: Dtype, checkpointing: bool, tokens: int, held: float
) -> None:
    """Bytes per weight of a model of 0.81 B that `python -m benchmarks memory` printed on an H100.

    Where activations are few, most is held in the update, when they are gone already: there the sum is too high.
    """
    parameters, launch = int(0.81 * ONE), LaunchConfig(gradient_checkpointing=checkpointing)
    weights = training_bytes_per_device(parameters, TrainConfig(dtype=dtype), launch)
    activations = activation_bytes(parameters, tokens, dtype, launch)
    assert weights is not None
    assert activations is not None
    assert 0.93 * held < (weights + activations) / parameters < 1.16 * held


@pytest.mark.parametrize(
    ("dtype", "devices", "expected"), [("bfloat16", 1, 2), ("float32", 1, 4), ("bfloat16", 4, 0.5), ("float32", 2, 2)]
)
def test_generating_takes_the_weights_spread_over_the_devices(dtype: Dtype, devices: int, expected: float) -> None:
    assert generation_bytes_per_device(ONE, dtype, EngineConfig(tensor_parallel_size=devices)) == expected * ONE


def test_an_unknown_size_gives_an_unknown_memory() -> None:
    assert training_bytes_per_device(None, TrainConfig(), LaunchConfig()) is None
    assert generation_bytes_per_device(None, "bfloat16", EngineConfig()) is None


@pytest.mark.parametrize(
    ("quantize", "launch", "expected"),
    [
        (False, {}, 2.0),
        (False, {"zero_stage": 3, "processes": 8}, 2 / 8),
        (False, {"zero_stage": 2, "processes": 8}, 2.0),
        (True, {}, 0.52),
    ],
)
def test_with_an_adapter_only_the_frozen_weights_count(quantize: bool, launch: dict[str, int], expected: float) -> None:
    config, devices = TrainConfig(adapter=AdapterConfig(quantize=quantize)), LaunchConfig.model_validate(launch)
    assert training_bytes_per_device(ONE, config, devices) == pytest.approx(expected * ONE)
    assert weights_bytes_per_device(ONE, config, devices) == pytest.approx(expected * ONE)


def test_activations_of_a_model_of_seven_billion_parameters() -> None:
    # Llama 2 7B has 32 layers of width 4,096; the estimate's 33 of 4,211 are near enough.
    tokens = 1000
    whole, checkpointed = (
        activation_bytes(7 * ONE, tokens, "bfloat16", LaunchConfig(gradient_checkpointing=flag))
        for flag in (False, True)
    )
    assert whole == pytest.approx(34 * tokens * 4096 * 32, rel=0.1)
    assert checkpointed == pytest.approx(tokens * 4096 * (2 * 32 + 34), rel=0.1)
    assert activation_bytes(None, tokens, "float32", LaunchConfig()) is None


def test_a_stage_takes_as_much_memory_as_its_largest_part() -> None:
    answers, judges = Estimate(10, 200, 5, 14 * ONE, 1), Estimate(0, 0, 1, 140 * ONE, 8)
    assert Estimate.one_after_another([answers, judges, Estimate(disk_bytes=4)]) == Estimate(10, 200, 10, 140 * ONE, 8)
    assert Estimate.one_after_another([answers, Estimate(devices=1)]).gpu_bytes is None
    assert Estimate.one_after_another([Estimate(disk_bytes=4)]) == Estimate(disk_bytes=4)


@pytest.mark.parametrize(
    ("settings", "models", "gigabytes", "devices"),
    [
        ({}, {}, None, 0),
        ({"name": "judge"}, {"judge": "Qwen2.5-32B"}, 16, 4),
        ({"name": "reward-model"}, {"reward-model": "reward-7b"}, 14, 1),
        ({"parts": {"judge": {}, "reward-model": {}}}, {"judge": "Qwen2.5-32B", "reward-model": "reward-70b"}, 140, 4),
        ({"parts": {"judge": {}, "reward-model": {}}}, {"judge": "anything", "reward-model": "reward-7b"}, None, 4),
    ],
)
def test_models_that_judge_take_memory(
    settings: dict[str, Any], models: dict[str, str], gigabytes: int | None, devices: int
) -> None:
    inputs = {name: Artifact(Path(model), None) for name, model in models.items()}
    config, engine = RewardConfig.model_validate(settings), EngineConfig(tensor_parallel_size=4)
    found = judging_estimate(Judging(config, engine), inputs)
    memory = None if gigabytes is None else gigabytes * ONE
    assert found == Estimate(gpu_bytes=memory, devices=devices, cached="judge" in models)


LLAMA_2 = {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096}
QWEN_25 = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "hidden_size": 3584}
DEEPSEEK_V2 = {"num_hidden_layers": 60, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_attention_heads": 128}


@pytest.mark.parametrize(
    ("config", "dtype", "devices", "expected"),
    [
        (LLAMA_2, "bfloat16", 1, 524_288),  # 0.5 MB per token: vLLM's documentation and many others
        (LLAMA_2, "float32", 1, 1_048_576),
        (LLAMA_2, "bfloat16", 8, 65_536),
        (QWEN_25, "bfloat16", 1, 57_344),
        (QWEN_25, "bfloat16", 8, 14_336),  # four heads on eight devices: each has one
        ({"text_config": QWEN_25, "vision_config": {}}, "bfloat16", 1, 57_344),
        (QWEN_25 | {"head_dim": 256}, "bfloat16", 1, 114_688),
        (DEEPSEEK_V2, "bfloat16", 1, 69_120),
        ({}, "bfloat16", 1, None),
        ({"num_hidden_layers": None, "num_attention_heads": 4}, "bfloat16", 1, None),
    ],
)
def test_cache_per_token(config: dict[str, Any], dtype: Any, devices: int, expected: int | None) -> None:
    assert cache_bytes_per_token(config, dtype, EngineConfig(tensor_parallel_size=devices)) == expected


@pytest.mark.parametrize(
    ("told", "memory", "expected"),
    [
        (None, None, False),  # without a GPU, nothing tells
        (None, 200 * ONE, False),
        (None, 150 * ONE, True),
        (False, 150 * ONE, False),
        (True, 200 * ONE, True),
    ],
)
def test_gradients_are_checkpointed_where_the_estimate_without_exceeds_the_gpu(
    told: bool | None, memory: int | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.policies.train.gpu_memory", lambda: memory)
    run = Run(tmp_path, parameters=7 * ONE, row_tokens=2048)
    training = Training(
        SupervisedConfig(dtype="bfloat16"), LaunchConfig(gradient_checkpointing=told, micro_batch_size=1)
    )
    assert decided(run, training, 1).gradient_checkpointing is expected


@pytest.mark.parametrize(("offload", "stage", "least"), [("optimizer", 0, 1), ("all", 2, 3)])
def test_only_what_zero_spreads_can_be_offloaded(offload: str, stage: int, least: int) -> None:
    with pytest.raises(ValidationError, match=f"launch.offload {offload} needs launch.zero_stage {least} or more"):
        LaunchConfig.model_validate({"offload": offload, "zero_stage": stage})
