"""The reward-weighted loss against values computed by hand, checkpoints to resume from, and the training journal."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Gemma2Config, GPTJConfig, LlamaConfig, MistralConfig, Qwen2Config
from trl import pack_dataset
from trl.trainer.utils import add_fused_lm_head

from models.adapters.adapter import Adapter, Training
from models.adapters.kinds import new_adapter
from models.adapters.settings import AdapterConfig
from models.config import LaunchConfig, SupervisedConfig
from models.launch import SUPERVISED, launch_command
from models.training.attention import PACKED, attention
from models.training.common import (
    CHECKPOINTS,
    COMPLETE,
    IGNORED,
    FreshOptimizer,
    Journal,
    last_checkpoint,
    run_training,
    training_arguments,
)
from models.training.supervised import Collator, reward_weighted_nll
from tests.unit.toy import toy_llama

LOG_PROBS = [[0.0, -0.5, -1.5, 0.0], [0.0, 0.0, -2.0, -0.25]]


def test_the_loss_is_the_weighted_sum_of_answer_log_probabilities_per_answer_token() -> None:
    weights = [0.25, 3.0]
    by_hand = -(0.25 * (-0.5 - 1.5) + 3.0 * (-2.0 - 0.25)) / 4
    assert math.isclose(by_hand, 1.8125)
    loss = reward_weighted_nll(torch.tensor(LOG_PROBS), torch.tensor(weights)[:, None], 4)
    assert loss.item() == pytest.approx(by_hand)


def test_a_weight_of_zero_takes_the_answer_out_of_the_sum_but_not_out_of_the_tokens() -> None:
    loss = reward_weighted_nll(torch.tensor(LOG_PROBS), torch.tensor([[0.0], [1.0]]), torch.tensor(4))
    assert loss.item() == pytest.approx((2.0 + 0.25) / 4)


def test_with_weights_of_one_it_is_the_mean_negative_log_likelihood_of_the_answer_tokens() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 6, 11)
    labels = torch.randint(0, 11, (3, 6))
    labels[:, :2] = IGNORED
    labels[1, 4:] = IGNORED
    # What the trainer gives: the log-probability of each label given what precedes it, 0 outside the answers.
    shifted, before = labels[:, 1:], logits[:, :-1].log_softmax(-1)
    log_probs = before.gather(-1, shifted.clamp(min=0)[..., None])[..., 0].masked_fill(shifted == IGNORED, 0.0)
    loss = reward_weighted_nll(log_probs, torch.ones(3, 1), (shifted != IGNORED).sum())
    plain = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 11), shifted.reshape(-1), ignore_index=IGNORED)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


def test_the_parts_of_an_optimizer_step_add_up_to_the_loss_of_the_whole() -> None:
    log_probs, weights = torch.tensor(LOG_PROBS), torch.tensor([[0.25], [3.0]])
    parts = [reward_weighted_nll(log_probs[i : i + 1], weights[i : i + 1], 4).item() for i in range(2)]
    assert sum(parts) == pytest.approx(reward_weighted_nll(log_probs, weights, 4).item())


def test_gradients_are_scaled_by_the_reward() -> None:
    log_probs = torch.tensor(LOG_PROBS, requires_grad=True)
    reward_weighted_nll(log_probs, torch.tensor([[0.5], [2.0]]), 4).backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[-0.125] * 4, [-0.5] * 4]


def test_a_batch_without_answer_tokens_has_a_loss_of_zero_and_not_nan() -> None:
    assert reward_weighted_nll(torch.zeros(1, 3), torch.ones(1, 1), torch.tensor(0)).item() == 0.0


def test_a_batch_is_padded_with_ignored_labels_and_masked_out() -> None:
    rows = [
        {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7], "weights": [0.5] * 3},
        {"input_ids": [8], "labels": [8], "weights": [2.0]},
    ]
    batch = {name: tensor.tolist() for name, tensor in Collator(pad_token_id=1)(rows).items()}
    assert batch == {
        "input_ids": [[5, 6, 7], [8, 1, 1]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
        "labels": [[IGNORED, 6, 7], [8, IGNORED, IGNORED]],
        "weights": [[0.5, 0.5, 0.5], [2.0, 0.0, 0.0]],
    }


@pytest.mark.parametrize("in_one", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("way", ["sdpa", "eager", PACKED])
def test_packed_examples_do_not_see_one_another_and_give_the_loss_of_rows_of_their_own(
    way: str, checkpointing: bool, in_one: bool
) -> None:
    model, plain = toy_llama(11).double(), toy_llama(11).double()  # or some CPUs round too differently
    model.set_attn_implementation(way)
    if checkpointing:
        model.train().gradient_checkpointing_enable()
    for one in (model, plain):
        add_fused_lm_head(one)
    answers = [([1, 2, 3], 1, 1.0), ([4, 5, 6, 7], 2, 2.0), ([8, 9], 1, 0.5), ([3, 3, 3, 3, 10], 4, 1.0)]
    rows = [
        {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:], "weights": [weight] * len(ids)}
        for ids, prompt, weight in answers
    ]
    packed = list(pack_dataset(Dataset.from_list(rows), 8, "bfd"))
    assert sorted(len(row["seq_lengths"]) for row in packed) == [2, 2]

    def loss(model: Any, rows: list[dict[str, Any]]) -> float:
        batch = Collator(pad_token_id=0, in_one=in_one)(rows)
        weights = batch.pop("weights")
        log_probs = model(**batch, use_cache=False, fused_lm_head=True).log_probs
        found = reward_weighted_nll(log_probs, weights[:, 1:], 7)
        found.backward()
        return found.item()

    assert loss(model, packed) == pytest.approx(loss(plain, rows), rel=1e-5)
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_packed_rows_build_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model, masks = toy_llama(11), list[Any]()
    plain = torch.nn.functional.scaled_dot_product_attention

    def looked_at(*arguments: Any, attn_mask: Any = None, **settings: Any) -> Any:
        masks.append(attn_mask)
        return plain(*arguments, attn_mask=attn_mask, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", looked_at)
    positions = torch.tensor([[0, 1, 2, 0, 1, 0, 0]])  # two examples, then padding
    for way, calls in (("sdpa", 2), (PACKED, 6)):
        masks.clear()
        model.set_attn_implementation(way)
        model(input_ids=torch.arange(7)[None], position_ids=positions, use_cache=False)
        assert len(masks) == calls
        assert all((mask is None) == (way == PACKED) for mask in masks)


PLAIN = LlamaConfig(vocab_size=11, hidden_size=64)
GPT_J = GPTJConfig(vocab_size=11, n_embd=64, rotary_dim=2)  # has attention of its own
MISTRAL = MistralConfig(vocab_size=11, hidden_size=64, sliding_window=16)
QWEN = Qwen2Config(vocab_size=11, hidden_size=64)  # has a window that it does not use
GEMMA = Gemma2Config(vocab_size=11, hidden_size=64)


@pytest.mark.parametrize(
    ("config", "choice", "packed", "flash", "expected"),
    [
        (PLAIN, "auto", True, False, PACKED),
        (QWEN, "auto", True, False, PACKED),
        (MISTRAL, "auto", True, False, None),
        (GEMMA, "auto", True, False, None),
        (GPT_J, "auto", True, False, None),
        (PLAIN, "auto", False, False, None),
        (PLAIN, "sdpa", True, True, "sdpa"),
        (PLAIN, "auto", True, True, "flash_attention_2"),
        (MISTRAL, "auto", False, True, "flash_attention_2"),
    ],
)
def test_attention_is_chosen_by_what_the_device_has(
    config: Any, choice: Any, packed: bool, flash: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: flash)
    monkeypatch.setattr("models.training.attention.is_flash_attn_2_available", lambda: flash)
    told = {} if expected is None else {"attn_implementation": expected}
    assert attention(choice, "bfloat16", config, packed) == told
    if flash and choice == "auto":
        assert "flash" not in str(attention("auto", "float32", config, packed))


def make_checkpoint(folder: Path, step: int, complete: bool) -> None:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_text("weights")
    if complete:
        (checkpoint / COMPLETE).touch()


@pytest.mark.parametrize(
    ("checkpoints", "newest", "kept"),
    [
        ({}, None, set()),
        ({200: True}, 200, {200}),
        ({200: True, 1000: True, 400: True}, 1000, {200, 400, 1000}),
        ({200: True, 400: False}, 200, {200}),
        ({200: False, 400: True}, 400, {400}),
        ({200: False}, None, set()),
    ],
)
def test_training_resumes_from_the_newest_checkpoint_that_is_complete_and_removes_the_others(
    tmp_path: Path, checkpoints: dict[int, bool], newest: int | None, kept: set[int]
) -> None:
    for step, complete in checkpoints.items():
        make_checkpoint(tmp_path, step, complete)
    found = last_checkpoint(tmp_path)
    assert found == (None if newest is None else tmp_path / f"checkpoint-{newest}")
    assert {p.name for p in tmp_path.iterdir()} == {f"checkpoint-{step}" for step in kept}


def test_there_is_nothing_to_resume_from_before_the_first_start(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "absent") is None


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "loss": step / 10}) + "\n" for step in steps)


@pytest.mark.parametrize(
    ("before", "resumed", "kept"),
    [
        (None, 0, ()),
        (lines(10, 20, 30), 0, ()),
        (lines(10, 20, 30, 40), 20, (10, 20)),
        (lines(10, 20), 25, (10, 20)),
        (lines(10, 20) + '{"step": 30, "lo', 40, (10, 20)),  # torn by a kill
    ],
)
def test_the_journal_forgets_the_lines_after_the_step_it_resumes_from(
    tmp_path: Path, before: str | None, resumed: int, kept: tuple[int, ...]
) -> None:
    path = tmp_path / "metrics.jsonl"
    if before is not None:
        path.write_text(before)
    Journal(path, resumed).on_train_begin(
        None, SimpleNamespace(is_world_process_zero=True, max_steps=9, global_step=0), None
    )
    assert path.read_text() == lines(*kept)


def test_the_journal_writes_one_line_per_logged_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(lines(10))
    journal = Journal(path, 10)
    state = SimpleNamespace(is_world_process_zero=True, global_step=20)
    journal.on_log(None, state, None, {"loss": "2.5", "learning_rate": 0.001})
    journal.on_log(None, state, None, {"train_runtime": 3.0})
    journal.on_log(None, state, None, None)
    journal.on_log(None, SimpleNamespace(is_world_process_zero=False, global_step=20), None, {"loss": 9.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.5, "learning_rate": 0.001},
    ]


def test_a_checkpoint_is_marked_complete_once_it_is_saved(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 200, complete=False)
    journal = Journal(tmp_path / "metrics.jsonl", 0)
    state = SimpleNamespace(is_world_process_zero=True, global_step=200)
    journal.on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-200"


@pytest.mark.parametrize(
    ("step", "save_last", "saves"), [(8, False, True), (9, False, False), (8, True, True), (9, True, True)]
)
def test_whether_a_checkpoint_is_written_after_the_last_step(
    tmp_path: Path, step: int, save_last: bool, saves: bool
) -> None:
    control = SimpleNamespace(should_save=True)
    state = SimpleNamespace(max_steps=9, global_step=step)
    Journal(tmp_path / "metrics.jsonl", 0, save_last).on_step_end(None, state, control)
    assert control.should_save == saves


def test_a_step_that_was_made_to_set_up_an_optimizer_is_not_counted() -> None:
    """AdamW moves a weight by the learning rate in its first step, whatever the gradient."""
    weight = torch.nn.Parameter(torch.zeros(1))
    adamw = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0)
    weight.grad = torch.zeros(1)
    adamw.step()
    FreshOptimizer().on_train_begin(
        None, None, None, optimizer=SimpleNamespace(optimizer=SimpleNamespace(optimizer=adamw))
    )
    weight.grad = torch.ones(1)
    adamw.step()
    assert weight.item() == pytest.approx(-0.1)


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("adapter", [None, new_adapter(AdapterConfig(), Training(1e-4, 0))])
def test_only_a_training_from_its_beginning_has_a_fresh_optimizer_and_only_an_adapter_a_last_checkpoint(
    tmp_path: Path, resumed: bool, adapter: Adapter | None
) -> None:
    if resumed:
        make_checkpoint(tmp_path / CHECKPOINTS, 4, complete=True)
    added: list[Any] = []
    trainer = SimpleNamespace(
        add_callback=added.append,
        pop_callback=lambda _: None,
        train_dataset=[],
        train=lambda resume_from_checkpoint: None,
        save_model=lambda folder: None,
        is_world_process_zero=lambda: False,
        model=torch.nn.Linear(1, 1),
        accelerator=SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=0))),
    )
    run_training(trainer, None, tmp_path / "policy", adapter)
    (journal,) = (callback for callback in added if isinstance(callback, Journal))
    assert journal.save_last == (adapter is not None)
    assert any(isinstance(callback, FreshOptimizer) for callback in added) != resumed


def test_a_batch_that_would_have_another_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"launch\.processes is 2, but the number of processes is 1"):
        training_arguments(SupervisedConfig(), LaunchConfig(processes=2), 0, tmp_path / "policy")


def test_only_several_processes_need_a_launcher() -> None:
    file = Path("train.json")
    assert launch_command(SUPERVISED, LaunchConfig(), file) == [sys.executable, "-m", SUPERVISED, "train.json"]
    command = launch_command(SUPERVISED, LaunchConfig(processes=2), file)
    assert command[1:3] == ["-m", "torch.distributed.run"]
    assert command[-5:] == ["--nproc-per-node", "2", "-m", SUPERVISED, "train.json"]
