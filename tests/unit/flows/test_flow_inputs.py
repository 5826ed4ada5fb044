"""Bad input to SPIN, SFT and DPO: refused before a model loads, each with what is wrong and what to do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from safetensors.numpy import save_file

from flows import dpo, sft, spin
from flows.commands.cli import main
from flows.commands.flow_table import own_flows
from flows.commands.settings import read_settings
from models import tiny
from tasks.loop import preflight
from tasks.loop.preflight import check
from tasks.policies.adapter import AdapterError, check_adapter
from tasks.stage.contract import OnDrift
from tests.unit.reading import load_problems

ROW = {"question": "What is 1 + 1?", "answer": "1+1=2 #### 2"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says that is turned away; nothing may have been made."""
    assert main([*arguments, "--generate.max-tokens", "48"]) == 2
    assert not (Path.cwd() / "runs" / "run").exists()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--train.beta", "0"], ["train.beta", "greater than 0"]),
        (["--train.beta", "[0.1, -1, 1, 1]"], ["train.beta", "greater than 0"]),
        (["--train.beta", "[1, 2]"], ["train.beta has 2 values for 4 iterations", "one number for all"]),
        (["--iterations", "5"], ["train.learning_rate has 4 values for 5 iterations"]),
        (["--train.loss", "ipo"], ["train.loss", "'logistic' or 'hinge'"]),
        (["--train.adapter.rank", "0"], ["train.adapter.rank", "greater than or equal to 1"]),
        (["--train.adapter.rnak", "2"], ["--train.adapter.rnak", "did you mean --train.adapter.rank?"]),
        (
            ["--train.adapter.quantize", "true", "--launch.zero-stage", "3"],
            ["ZeRO 3 cannot shard 4-bit weights", "0, 1 or 2"],
        ),
        (["--train.adapter.targets", '["query"]'], ["'query' matches no module of the embedded model", "q_proj"]),
        (["--train.adapter.targets", '["lm_head"]'], ["'lm_head' matches no module"]),
        (["--train.adapter.rank", "129"], ["the rank is 129", "a matrix of q_proj", "only 128 rows", "at most 128"]),
        (["--train.adapter.kind", "adalora", "--train.adapter.adalora.initial-rank", "200"], ["the rank is 200"]),
        (["--train.adapter.kind", "bitfit"], ["the embedded model has no biases", "Use lora, adalora, ia3"]),
        (["--train.adapter.kind", "ia3", "--train.adapter.ia3.targets", '["fc", "down_proj"]'], ["ia3.targets: 'fc'"]),
        (["--train.adapter.kind", "prompt-tuning"], ["--train.adapter.kind", "diff-pruning"]),
        (["--train.adapter.kind", "prompt", "--train.adapter.prompt.tokens", "1024"], ["fill the context of 1,024"]),
        (["--train.adapter.kind", "prefix", "--launch.gradient-checkpointing", "on"], ["recomputes layers"]),
        (["--train.adapter.kind", "ia3", "--launch.zero-stage", "3"], ["needs whole weights", "works with 3: lora"]),
    ],
)
def test_settings_of_spin(capsys, arguments, says):
    message = refused(capsys, "spin", *arguments)
    for words in says:
        assert words in message


def test_four_bits_without_bitsandbytes(capsys, monkeypatch):
    find = preflight.importlib.util.find_spec
    monkeypatch.setattr(
        preflight.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    message = refused(capsys, "spin", "--train.adapter.quantize", "true")
    assert "needs the package bitsandbytes" in message and "train.adapter.quantize to false" in message


def test_targets_are_compared_with_the_users_own_model(capsys, folder):
    tiny.write_untrained(folder / "model", ["Ada has 4 books."])
    write_tensors(folder / "model", {"layers.0.attention.query.weight": [2, 2]})
    message = refused(capsys, "sft", "--model", "model")
    assert "'q_proj' matches no module of model" in message and "Choose from query" in message


WHOLE = {"train": {"adapter": None}}


def write_tensors(folder: Path, shapes: dict[str, list[int]], name: str = "model.safetensors") -> None:
    save_file({key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}, folder / name)


def write_adapter(folder: Path, height: int, width: int) -> None:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    module = "base_model.model.layers.0.q_proj"
    shapes = {f"{module}.lora_A.weight": [8, width], f"{module}.lora_B.weight": [height, 8]}
    write_tensors(folder, shapes, "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("height", "width", "base", "says"),
    [
        (4, 6, None, []),
        (4, 4, None, ["trained on another base", "layers.0.q_proj is 4 × 4, and the model has 4 × 6 there"]),
        (4, 6, "0123456789abcdef", ["trained on another base", "have another digest (0123456789abcdef, not "]),
    ],
)
def test_an_adapter_is_merged_only_into_the_model_it_was_trained_on(capsys, folder, height, width, base, says):
    tiny.write_untrained(folder / "model", ["Ada has 4 books."])
    write_tensors(folder / "model", {"layers.0.q_proj.weight": [4, 6], "layers.0.v_proj.weight": [4, 6]})
    write_adapter(folder / "adapter", height, width)
    if base:
        (folder / "adapter" / "base.json").write_text(
            json.dumps({"weights": base, "dtype": "float32", "quantize": False})
        )
    if not says:
        config = sft.SFT.model_validate(
            {"model": "model", "adapter": "adapter", "generate": {"max_tokens": 48}} | WHOLE
        )
        assert check(sft.loop, config, OnDrift.REFUSE).plan[1].stage.inputs["adapter"].digest
        return
    message = refused(capsys, "sft", "--model", "model", "--adapter", "adapter")
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("kind", "tensors", "says"),
    [
        ("IA3", {"base_model.model.layers.0.q_proj.ia3_l": [4, 1]}, ""),
        ("IA3", {"base_model.model.layers.0.q_proj.ia3_l": [1, 6]}, ""),
        ("IA3", {"base_model.model.layers.0.q_proj.ia3_l": [1, 5]}, "q_proj is any × 5, and the model has 4 × 6 there"),
        ("ADALORA", {"base_model.model.layers.0.q_proj.lora_A": [8, 5]}, "q_proj is any × 5, and"),
        ("bitfit", {"layers.0.q_proj.bias": [4]}, ""),
        ("bitfit", {"layers.0.v_proj.bias": [4]}, "layers.0.v_proj.bias is 4, and the model has no such module"),
        ("diff-pruning", {"layers.0.q_proj.weight.indices": [3], "layers.0.q_proj.weight.values": [3]}, ""),
        ("diff-pruning", {"layers.1.q_proj.weight.values": [4, 6]}, "and the model has no such module"),
        ("diff-pruning", {"layers.0.q_proj.weight.values": [4, 5]}, "q_proj is 4 × 5, and the model has 4 × 6 there"),
        ("LORA", {"base_model.model.layers.0.q_proj.lora_A.weight": [8, 4]}, ""),  # inputs before outputs, as in GPT-2
        ("LORA", {"base_model.model.lm_head.weight": [9, 9]}, ""),  # a module saved beside
        ("PREFIX_TUNING", {"prompt_embeddings": [3, 4]}, "PREFIX_TUNING adapter; only LORA, ADALORA"),
    ],
)
def test_adapters_of_every_kind_are_compared_with_the_model(folder, kind, tensors, says):
    (folder / "model").mkdir()
    write_tensors(folder / "model", {"layers.0.q_proj.weight": [4, 6], "layers.0.q_proj.bias": [4]})
    (folder / "adapter").mkdir()
    key = "peft_type" if kind.isupper() or kind == "IA3" else "kind"
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps({key: kind}))
    write_tensors(folder / "adapter", tensors, "adapter_model.safetensors")
    if not says:
        check_adapter(folder / "adapter", folder / "model")
        return
    with pytest.raises(AdapterError, match=says):
        check_adapter(folder / "adapter", folder / "model")


def test_an_adapter_needs_its_model_and_its_files(capsys, folder):
    assert "Give the --model that it was trained on" in refused(capsys, "sft", "--adapter", "adapter")
    tiny.write_untrained(folder / "model", ["Ada has 4 books."])
    write_tensors(folder / "model", {"layers.0.q_proj.weight": [4, 6]})
    message = refused(capsys, "sft", "--model", "model", "--adapter", "adapter")
    assert "adapter is not an adapter: it needs adapter_config.json" in message


@pytest.mark.parametrize("flow", ["spin", "sft"])
def test_training_prompts_without_gold_answers(capsys, folder, flow):
    message = refused(capsys, flow, "--problems", write(folder / "a.jsonl", [ROW, {"prompt": "Write a poem."}]))
    assert "a.jsonl, line 2" in message and "no 'answer'" in message


@pytest.mark.parametrize("flow", ["spin", "sft"])
def test_gold_answers_that_cannot_be_graded_are_measured_by_their_likelihood(capsys, folder, flow):
    rows = [{"prompt": f"Write poem {n}.", "response": "Roses are red,\nviolets are blue."} for n in range(40)]
    file = write(folder / "poems.jsonl", rows)
    assert main([flow, "--problems", file, "--generate.max-tokens", "48", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "iter-0/likelihood" in planned and "final/best-likelihood" in planned and "evaluate" not in planned
    assert "has no final answer" in refused(capsys, flow, "--problems", file, "--verify", "true")
    held_out = [write(folder / f"{name}.jsonl", [{**ROW, "question": name}]) for name in ("validation", "test")]
    arguments = ["--problems", file, "--validation", held_out[0], "--test", held_out[1]]
    assert main([flow, *arguments, "--generate.max-tokens", "48", "--dry-run"]) == 0
    assert "iter-0/evaluate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flow", "arguments", "says"),
    [
        (
            "rest-em",
            ["--measure", "loss"],
            "no gold answers to held-out prompts. Choose accuracy, sampled_accuracy, last",
        ),
        ("rest-em", ["--measure", "sampled_accuracy", "--evaluate.pass-at", "[8]"], "no 1 in evaluate.pass_at"),
        ("sft", ["--measure", "pair_accuracy"], "has no held-out pairs. Choose accuracy, sampled_accuracy, loss, last"),
        ("spin", ["--measure", "win_rate"], "has no judge: set win_rate.judge"),
        ("sft", ["--stop.rule", "discriminator"], "stop.rule discriminator needs SPIN's"),
    ],
)
def test_a_measure_that_cannot_be_taken_is_refused_with_those_that_can(capsys, folder, flow, arguments, says):
    assert says in refused(capsys, flow, "--generate.max-tokens", "48", *arguments)


PAIR = {"prompt": "What is 1 + 1?", "chosen": "2", "rejected": "3"}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([PAIR, {"prompt": "?", "chosen": "2"}], ["pairs.jsonl, line 2", "'rejected'"]),
        ([PAIR, {**PAIR, "chosen": " "}], ["pairs.jsonl, line 2", "chosen"]),
        ([{**PAIR, "rejected": "2"}], ["pairs.jsonl", "equal"]),
        ([], ["pairs.jsonl is empty"]),
    ],
)
def test_pairs_of_dpo(capsys, folder, rows, says):
    message = refused(capsys, "dpo", "--pairs", write(folder / "pairs.jsonl", rows))
    for words in says:
        assert words in message


def test_dpo_without_pairs(capsys):
    message = refused(capsys, "dpo")
    assert "pairs" in message and "required" in message.lower()
    assert "no file missing.jsonl" in refused(capsys, "dpo", "--pairs", "missing.jsonl")


@pytest.mark.parametrize(
    ("module", "config"),
    [(spin, {}), (sft, {}), (dpo, {"pairs": "pairs.jsonl"})],
)
def test_default_settings_pass_every_check_once_answers_fit(folder, module, config):
    write(folder / "pairs.jsonl", [{**PAIR, "prompt": f"What is {n} + 1?"} for n in range(60)])
    config_class: type[BaseModel] = {spin: spin.Spin, sft: sft.SFT, dpo: dpo.DPO}[module]
    made = config_class.model_validate(config | {"generate": {"max_tokens": 48}})
    plan = check(module.loop, made, OnDrift.REFUSE)
    assert plan.plan[-1].stage.name == "final/best-likelihood"


@pytest.mark.parametrize(
    ("flow", "flags", "expected"),
    [
        ("spin", ["--generate.max-tokens", "512"], {"generate": {"samples": 1, "temperature": 1.0, "top_k": 0}}),
        ("sft", ["--train.learning-rate", "2e-4"], {"train": {"epochs": 1, "batch_size": 8, "schedule": "cosine"}}),
        ("sft", ["--train.adapter.rank", "4"], {"train": {"adapter": {"quantize": True, "alpha": 16}}}),
        ("dpo", ["--pairs", "p.jsonl", "--train.beta", "0.3"], {"train": {"optimizer": "adamw", "epochs": 1}}),
        ("rest-em", ["--bootstrap.train.epochs", "2"], {"bootstrap": {"train": {"learning_rate": 3e-3}}}),
    ],
)
def test_changing_one_setting_leaves_the_rest_of_a_recipe_as_it_is(flow, flags, expected):
    config, _ = read_settings(own_flows()[flow].load().settings, flags, "autodidact")
    found = config.model_dump(mode="json")
    assert _only(found, expected) == expected


def _only(found: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    return {key: _only(found[key], value) if isinstance(value, dict) else found[key] for key, value in like.items()}


def test_held_out_files_replace_the_embedded_problems_one_by_one(folder):
    rows = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(12)]
    config = dpo.DPO.model_validate({"pairs": "p.jsonl", "test": write(folder / "test.jsonl", rows)})
    assert {name: len(rows) for name, rows in load_problems(config, 0).splits.items()} == config.expected_problems
    assert config.expected_problems == {"train": 3000, "validation": 500, "test": 12, "transfer": 300}
