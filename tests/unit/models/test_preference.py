"""The losses of SPIN and DPO against values computed by hand, and against TRL's DPO with a resident reference."""

import math
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from data.arithmetic import embedded_problems
from data.likelihood import preference_metrics
from data.rows import Pair, PairLikelihood
from models import tiny
from models.tiny import VOCABULARY
from models.training.likelihood import log_probs_of
from models.training.preference import LOSSES, PairCollator, PreferenceTrainer, encode
from tests.unit.toy import toy_llama

ROWS = [([3, 1], [2, 0], [1, 1, 0]), ([1], [3, 3, 2, 0], [2]), ([2, 2], [1, 0], [0])]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [p.messages[0]["content"] for p in embedded_problems(0) if p.split == "demonstration"]
    tiny.write_untrained(folder, texts)
    return AutoTokenizer.from_pretrained(folder)


def arguments(folder: Path, loss: str, beta: float, precomputed: bool) -> DPOConfig:
    return DPOConfig(
        output_dir=str(folder),
        loss_type=[LOSSES[loss]],
        beta=beta,
        precompute_ref_log_probs=precomputed,
        max_length=None,
        use_cpu=True,
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        remove_unused_columns=False,
    )


def ours(folder: Path, tokenizer: Any, rows: list[dict[str, Any]], loss: str, beta: float) -> PreferenceTrainer:
    return PreferenceTrainer(
        model=toy_llama(VOCABULARY),
        args=arguments(folder, loss, beta, True),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=PairCollator(0),
    )


def row(
    prompt: list[int], chosen: list[int], rejected: list[int], reference: tuple[float, float], label: float = 1.0
) -> dict[str, Any]:
    return {
        "prompt_ids": prompt,
        "chosen_ids": chosen,
        "rejected_ids": rejected,
        "ref_chosen_logps": reference[0],
        "ref_rejected_logps": reference[1],
        "label": label,
    }


def loss_of(trainer: DPOTrainer, rows: list[dict[str, Any]]) -> float:
    trainer.model.train()
    return float(trainer.compute_loss(trainer.model, trainer.data_collator(rows)).detach())


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("beta", [0.1, 5.0])
def test_the_loss_is_the_formula_of_the_paper(tmp_path, tokenizer, loss, beta):
    references = [(-7.0, -9.0), (-20.0, -3.0), (-1.0, -2.5)]
    rows = [row(*sides, reference) for sides, reference in zip(ROWS, references, strict=True)]
    trainer = ours(tmp_path, tokenizer, rows, loss, beta)
    expected = []
    for (prompt, chosen, rejected), (ref_chosen, ref_rejected) in zip(ROWS, references, strict=True):
        gold, own = log_probs_of(trainer.model, [(prompt, chosen), (prompt, rejected)], 0, "cpu")
        margin = beta * ((gold - ref_chosen) - (own - ref_rejected))
        expected.append(math.log1p(math.exp(-margin)) if loss == "logistic" else max(0.0, 1.0 - margin))
    assert loss_of(trainer, rows) == pytest.approx(sum(expected) / 3, rel=1e-4)


@pytest.mark.parametrize("labels", [(0.9, 0.6, 1.0), (0.5, 0.5, 0.5)])
def test_a_label_weighs_both_directions(tmp_path, tokenizer, labels):
    references = [(-7.0, -9.0), (-20.0, -3.0), (-1.0, -2.5)]
    rows = [row(*ROWS[n], references[n], labels[n]) for n in range(3)]
    trainer = ours(tmp_path, tokenizer, rows, "logistic", 0.5)
    expected, ratios = [], []
    for (prompt, chosen, rejected), (ref_chosen, ref_rejected), label in zip(ROWS, references, labels, strict=True):
        gold, own = log_probs_of(trainer.model, [(prompt, chosen), (prompt, rejected)], 0, "cpu")
        margin = 0.5 * ((gold - ref_chosen) - (own - ref_rejected))
        sigmoid = 1 / (1 + math.exp(-margin))
        expected.append(-label * math.log(sigmoid) - (1 - label) * math.log(1 - sigmoid))
        ratios.append((gold - ref_chosen, own - ref_rejected))
    assert loss_of(trainer, rows) == pytest.approx(sum(expected) / 3, rel=1e-4)
    held_out = preference_metrics(ratios, 0.5, "logistic", labels)
    assert held_out["loss"] == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_at_one_half_the_loss_pulls_a_margin_to_zero(tmp_path, tokenizer):
    """Its gradient is (σ(m) − p) · dm: none at m = 0, and the same as that of hard labels otherwise but for p."""
    rows = [row(*sides, (0.0, 0.0), 0.5) for sides in ROWS]
    trainer = ours(tmp_path, tokenizer, rows, "logistic", 5.0)
    for line, (prompt, chosen, rejected) in zip(rows, ROWS, strict=True):
        gold, own = log_probs_of(trainer.model, [(prompt, chosen), (prompt, rejected)], 0, "cpu")
        line |= {"ref_chosen_logps": gold, "ref_rejected_logps": own}
    trainer.compute_loss(trainer.model, trainer.data_collator(rows)).backward()
    steepest = max(float(weights.grad.abs().max()) for weights in trainer.model.parameters())
    assert steepest < 1e-4


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_with_the_policy_as_its_own_reference_the_loss_is_that_of_a_margin_of_zero(tmp_path, tokenizer, loss):
    rows = [row(*sides, (0.0, 0.0)) for sides in ROWS]
    trainer = ours(tmp_path, tokenizer, rows, loss, 5.0)
    for line, (prompt, chosen, rejected) in zip(rows, ROWS, strict=True):
        gold, own = log_probs_of(trainer.model, [(prompt, chosen), (prompt, rejected)], 0, "cpu")
        line |= {"ref_chosen_logps": gold, "ref_rejected_logps": own}
    assert loss_of(trainer, rows) == pytest.approx({"logistic": math.log(2), "hinge": 1.0}[loss], abs=1e-4)


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_the_precomputed_reference_gives_the_loss_of_trl_with_a_resident_one(tmp_path, tokenizer, loss):
    reference = toy_llama(VOCABULARY, seed=1)
    plain = [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), sides, strict=True)) for sides in ROWS]

    class Resident(DPOTrainer):  # TRL's own losses and reference; the rows are token ids already
        def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
            return dataset

    resident = Resident(
        model=toy_llama(VOCABULARY),
        ref_model=reference,
        args=arguments(tmp_path, loss, 0.5, False),
        train_dataset=Dataset.from_list(plain),
        processing_class=tokenizer,
        data_collator=DataCollatorForPreference(0),
    )
    rows = []
    for prompt, chosen, rejected in ROWS:
        gold, own = log_probs_of(reference, [(prompt, chosen), (prompt, rejected)], 0, "cpu")
        rows.append(row(prompt, chosen, rejected, (gold, own)))
    mine = ours(tmp_path, tokenizer, rows, loss, 0.5)
    assert loss_of(mine, rows) == pytest.approx(loss_of(resident, plain), rel=1e-4)


def test_metrics_have_the_log_probability_per_token_of_both_sides(tmp_path, tokenizer):
    rows = [row(*sides, (0.0, 0.0)) for sides in ROWS]
    trainer = ours(tmp_path, tokenizer, rows, "logistic", 0.1)
    loss_of(trainer, rows)
    for side, number in (("chosen", 1), ("rejected", 2)):
        found = log_probs_of(trainer.model, [(sides[0], sides[number]) for sides in ROWS], 0, "cpu")
        tokens = sum(len(sides[number]) for sides in ROWS)
        assert trainer._metrics["train"][f"logps_per_token/{side}"] == pytest.approx([sum(found) / tokens], rel=1e-4)


def test_likelihoods_of_other_pairs_are_refused(tokenizer):
    pair = Pair("a", 0, [{"role": "user", "content": "Ada"}], "1", "2", None, None, "gold", "own")
    with pytest.raises(ValueError, match="Pair a/0 has the likelihood of a/1"):
        encode(tokenizer, pair, PairLikelihood("a", 1, 0.0, 0.0, 1, 1))
