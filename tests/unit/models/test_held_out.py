"""Held-out rows while training: figures against the likelihood program's and TRL's; training is not moved by them."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.reward_trainer import DataCollatorForPreference as TRLCollator

from data.arithmetic import embedded_problems
from data.likelihood import log_ratios, preference_metrics
from data.rows import Pair, PairLikelihood, Problem
from data.storage import write_rows
from models.tiny import VOCABULARY
from models.training.answers import gold_answers, pair_answers
from models.training.common import IGNORED, Journal, load_reward_model
from models.training.held_out import Evaluations, evaluation_steps, held_out_set
from models.training.likelihood import log_probs_of
from models.training.preference import LOSSES, PairCollator, PreferenceTrainer
from models.training.reward_model import PairRewardTrainer, RewardCollator, encode
from models.training.supervised import Collator, WeightedSFTTrainer, labelled
from tests.unit.toy import toy_llama, write_tiny

ROWS = [([3, 1], [1, 1, 0], [2, 0]), ([1], [3, 3, 2, 0], [2]), ([2, 2], [1, 0], [0]), ([5], [6] * 9, [7, 0])]
PROBLEMS = [p for p in embedded_problems(0) if p.split == "demonstration"][:5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy with random weights."""
    folder = tmp_path_factory.mktemp("model")
    write_tiny(folder, [p.messages[0]["content"] for p in PROBLEMS])
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def settings(folder: Path, batch: int) -> dict[str, Any]:
    told = {"output_dir": str(folder), "per_device_train_batch_size": 2, "per_device_eval_batch_size": batch}
    told |= {"use_cpu": True, "bf16": False, "report_to": [], "gradient_checkpointing": False, "disable_tqdm": True}
    return told | {"max_length": None, "remove_unused_columns": False, "save_strategy": "no"}


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (100, 4, {25, 50, 75, 100}),
        (10, 4, {3, 5, 8, 10}),
        (99, 3, {33, 66, 99}),
        (2, 4, {1, 2}),  # no more often than there are steps
        (7, 1, {7}),
        (7, 0, set()),
    ],
)
def test_evaluations_are_at_equal_distances_and_the_last_at_the_end(steps, count, expected):
    assert evaluation_steps(steps, count) == expected


def supervised(folder: Path, tokenizer: Any, dropout: float = 0.0, **more: Any) -> WeightedSFTTrainer:
    model = toy_llama(VOCABULARY)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    rows = [labelled(prompt, [IGNORED] * len(prompt), answer, 1.0) for prompt, answer, _ in ROWS]
    told = settings(folder, 3) | {"max_steps": 5, "learning_rate": 1e-2, "logging_steps": 1, "seed": 3, **more}
    return WeightedSFTTrainer(
        model=model,
        args=SFTConfig(**told, packing=False, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=held_out_set(None, rows, "input_ids"),
        processing_class=tokenizer,
        data_collator=Collator(0),
    )


def test_the_loss_of_gold_answers_is_per_token_of_all_of_them_whatever_the_batches(tmp_path, tokenizer):
    trainer = supervised(tmp_path, tokenizer)  # batches of 3 rows and of 1, whose mean is another number
    found = log_probs_of(trainer.model, [(prompt, answer) for prompt, answer, _ in ROWS], 0, "cpu")
    expected = -sum(found) / sum(len(answer) for _, answer, _ in ROWS)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def weights(trainer: Any, count: int) -> dict[str, torch.Tensor]:
    trainer.pop_callback(PrinterCallback)
    trainer.add_callback(Evaluations(count))
    trainer.train()
    return dict(trainer.model.state_dict())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_comes_to_the_same_weights_bit_by_bit_with_and_without_evaluations(tmp_path, tokenizer, dropout):
    without, often = (weights(supervised(tmp_path, tokenizer, dropout), count) for count in (0, 5))
    assert all(torch.equal(found, often[name]) for name, found in without.items())
    plain = weights(supervised(tmp_path, tokenizer, 0.0), 0)
    assert any(not torch.equal(found, plain[name]) for name, found in without.items()) == (dropout > 0)


def test_held_out_figures_have_lines_of_their_own_in_the_journal(tmp_path, tokenizer):
    trainer = supervised(tmp_path, tokenizer)
    trainer.add_callback(Journal(tmp_path / "metrics.jsonl", 0))
    weights(trainer, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    held_out = [line for line in lines if "loss" not in line]
    assert [line.keys() for line in held_out] == [{"step", "held_out/loss"}] * 2
    assert [line["step"] for line in held_out] == [3, 5]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
    assert held_out[1]["held_out/loss"] < held_out[0]["held_out/loss"]


def preference(
    kind: type[DPOTrainer], folder: Path, tokenizer: Any, loss: str, batch: int
) -> tuple[DPOTrainer, dict[str, float]]:
    """A trainer with held-out pairs, and what the likelihoods of these come to."""
    sequences = [(prompt, side) for prompt, *sides in ROWS for side in sides]
    likelihoods = []
    for seed in (0, 1):
        found = log_probs_of(fused(seed), sequences, 0, "cpu")
        pairs = zip(found[::2], found[1::2], strict=True)
        likelihoods.append([PairLikelihood(str(n), 0, *both, 1, 1) for n, both in enumerate(pairs)])
    policy, reference = likelihoods
    rows = [
        {
            "prompt_ids": prompt,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "ref_chosen_logps": row.chosen,
            "ref_rejected_logps": row.rejected,
            "label": 1.0,
        }
        for (prompt, chosen, rejected), row in zip(ROWS, reference, strict=True)
    ]
    config = DPOConfig(**settings(folder, batch), loss_type=[LOSSES[loss]], beta=0.3, precompute_ref_log_probs=True)
    trainer = kind(
        model=toy_llama(VOCABULARY, 0),
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=PairCollator(0) if kind is PreferenceTrainer else DataCollatorForPreference(0),
    )
    return trainer, preference_metrics(log_ratios(policy, reference), 0.3, loss)


def fused(seed: int) -> Any:
    from trl.trainer.utils import add_fused_lm_head

    model = toy_llama(VOCABULARY, seed)
    add_fused_lm_head(model)
    return model


class Plain(DPOTrainer):
    """TRL's own evaluation; the rows are token ids already."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


# TRL means over batches, so that its figures are those of the rows where batches are equal.
@pytest.mark.parametrize(("kind", "batch"), [(Plain, 2), (PreferenceTrainer, 2), (PreferenceTrainer, 3)])
@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_likelihoods_of_policy_and_reference_give_the_metrics_of_trls_evaluation(
    tmp_path, tokenizer, loss, kind, batch
):
    trainer, expected = preference(kind, tmp_path, tokenizer, loss, batch)
    found = trainer.evaluate()
    assert 0 < expected["rewards/accuracies"] < 1 and abs(expected["rewards/margins"]) > 0.1
    assert {name: found[f"eval_{name}"] for name in expected} == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("margin", "centering"), [(0.0, 0.0), (0.7, 0.3)])
def test_a_reward_model_is_measured_as_trl_measures_it_and_every_pair_counts_once(
    folder, tokenizer, tmp_path, margin, centering
):
    texts = ["4", "4 + 17 = 21. #### 5", "no idea", "no " * 9, "yes"]
    pairs = [Pair(p.id, 0, p.messages, text, "5", None, None, "", "") for p, text in zip(PROBLEMS, texts, strict=True)]
    rows = [encode(tokenizer, pair, margin) for pair in pairs]

    def figures(kind: Callable[..., Any], batch: int, collator: Callable[[int], Any]) -> dict[str, float]:
        torch.manual_seed(1)
        model = load_reward_model(folder, tokenizer, "float32")
        model.score.weight.data.normal_(std=0.1)
        trainer = kind(
            model=model,
            args=RewardConfig(**settings(tmp_path, batch), center_rewards_coefficient=centering or None),
            train_dataset=Dataset.from_list(rows),
            eval_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            data_collator=collator(tokenizer.pad_token_id),
        )
        return {name: trainer.evaluate()[f"eval_{name}"] for name in ("loss", "accuracy", "margin", "mean_reward")}

    trl = figures(RewardTrainer, 5, TRLCollator)
    assert abs(trl["margin"]) > 1e-3
    assert figures(PairRewardTrainer, 5, RewardCollator) == pytest.approx(trl, rel=1e-4)
    assert figures(PairRewardTrainer, 2, RewardCollator) == pytest.approx(trl, rel=1e-4)


def test_gold_answers_are_told_apart_and_what_does_not_fit_or_is_missing_is_left_out(tmp_path, tokenizer):
    first, second, *_ = PROBLEMS

    def problem(given: Problem, response: str | None) -> Problem:
        return Problem(given.id, given.messages, None, response, "", "validation")

    rows = [problem(first, "1"), problem(first, None), problem(second, "1 " * 50), problem(first, "2")]
    write_rows(Problem, tmp_path / "gold.parquet", rows)
    found = list(gold_answers(tokenizer, tmp_path / "gold.parquet", 60))
    assert [(row.problem_id, row.index) for row in found] == [(first.id, 0), (first.id, 1)]
    assert [tokenizer.decode(row.answers[0]) for row in found] == ["1<|end|>", "2<|end|>"]
    assert all(tokenizer.decode(row.prompt).startswith("<|user|>") for row in found)


def test_a_pair_of_which_one_side_does_not_fit_is_left_out(tmp_path, tokenizer):
    first, second, *_ = PROBLEMS
    rows = [
        Pair(first.id, 0, first.messages, "1", "2 " * 50, None, None, "", ""),
        Pair(second.id, 3, second.messages, "1", "2", None, [7, 8], "", ""),
    ]
    write_rows(Pair, tmp_path / "pairs.parquet", rows)
    (found,) = pair_answers(tokenizer, tmp_path / "pairs.parquet", 60)
    assert (found.problem_id, found.index, found.answers[1]) == (second.id, 3, [7, 8])


def test_that_rows_are_left_out_is_printed(tmp_path, capsys):
    write_rows(Problem, tmp_path / "gold.parquet", PROBLEMS)
    rows = [{"input_ids": [1]}, {"input_ids": [1, 2]}]
    made = held_out_set(tmp_path / "gold.parquet", rows, "input_ids")
    assert made is not None and made["input_ids"][:] == [[1, 2], [1]]
    assert "3 of 5 held-out rows have no answer that fits" in capsys.readouterr().out
    assert held_out_set(None, [], "input_ids") is None


def test_lines_of_held_out_rows_are_not_doubled_when_a_training_goes_on(tmp_path):
    path, state = tmp_path / "metrics.jsonl", SimpleNamespace(is_world_process_zero=True, global_step=4, max_steps=8)
    journal = Journal(path, 0)
    journal.on_log(None, state, None, {"loss": 2.0})
    journal.on_log(None, state, None, {"eval_loss": 3.0, "eval_runtime": 9.0, "epoch": 1.0})
    before = path.read_text()
    state.global_step = 6
    journal.on_log(None, state, None, {"eval_loss": 2.5})
    Journal(path, 4).on_train_begin(None, state, None)
    assert path.read_text() == before
    assert [json.loads(line) for line in before.splitlines()][1] == {"step": 4, "held_out/loss": 3.0}
