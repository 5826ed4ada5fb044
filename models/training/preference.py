"""Training on pairs with the loss of DPO and SPIN: TRL's DPOTrainer on DeepSpeed, with a precomputed reference.

    python -m models.training.preference CONFIG.json    # several processes: by torch.distributed.run, see launch.py

For a prompt x, a chosen answer y and a rejected answer y' (in SPIN: the gold answer and the opponent's own), with
log-probabilities summed over answer tokens and p_ref the policy that training starts from,

    m = β · [log p_θ(y|x) − log p_ref(y|x)] − β · [log p_θ(y'|x) − log p_ref(y'|x)]

and the loss is −log σ(m) (logistic: DPO, arXiv 2305.18290, equation 7; SPIN, arXiv 2401.01335, equation 4.7) or
max(0, 1 − m) (hinge). If a model labeled the pair, with a probability p that y is better, the logistic loss is

    −p · log σ(m) − (1 − p) · log σ(−m)  =  −log σ(m) + (1 − p) · m

models.training.likelihood computed log p_ref once, so no second model is in memory.
"""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch
from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from data.likelihood import PreferenceLoss, preference_metrics
from data.render import answer_token_ids, pad_token_id, prompt_token_ids
from data.rows import Pair, PairLikelihood
from data.storage import read_rows
from models.adapters.trainer import LearnsAdapter
from models.config import PreferenceProgram
from models.training.answers import pair_answers
from models.training.common import (
    adapter_of,
    attached,
    enter,
    leave,
    load_policy,
    padded_tokenizer,
    room,
    run_training,
    training_arguments,
)
from models.training.held_out import MeasuresHeldOut, held_out_set
from models.training.likelihood import sequence_log_probs
from models.training.rows import IDS, LABEL, NUMBER, KeepsLabels, rows_on_disk

FEATURES = dict.fromkeys(("prompt_ids", "chosen_ids", "rejected_ids"), IDS)
FEATURES |= dict.fromkeys(("ref_chosen_logps", "ref_rejected_logps", LABEL), NUMBER)
LOSSES: dict[PreferenceLoss, str] = {"logistic": "sigmoid", "hinge": "hinge"}


class PreferenceTrainer(LearnsAdapter, MeasuresHeldOut, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on rows that are already token ids, with the reference's log-probabilities."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """TRL's loss, and what labels change in it; adds the mean log-probability per answer token to its metrics."""
        labels = inputs.pop(LABEL)
        seen = _Seen(model)
        loss = super().compute_loss(seen, inputs, *rest, **options)
        if (labels < 1).any():
            loss = loss + ((1 - labels) * self._margins(seen.log_probs, inputs)).mean()
        metrics = self._metrics["train" if model.training else "eval"]
        lengths = inputs["completion_mask"][:, 1:].sum(dim=1).float().chunk(2)
        for side, tokens in zip(("chosen", "rejected"), lengths, strict=True):
            mean_length = self.accelerator.gather(tokens).mean().item()
            metrics[f"logps_per_token/{side}"].append(metrics[f"logps/{side}"][-1] / mean_length)
        return self.penalized(loss, model)

    def _margins(self, log_probs: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """The margin m of each pair, of shape (pairs,), from the log-probabilities of each token."""
        tokens = inputs["completion_mask"].size(1) - 1
        chosen, rejected = log_probs[:, -tokens:].sum(dim=1).chunk(2)
        return self.beta * ((chosen - inputs["ref_chosen_logps"]) - (rejected - inputs["ref_rejected_logps"]))

    def row_values(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        found = sequence_log_probs(model, inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"])
        chosen, rejected = found.chunk(2)
        return {
            "chosen": chosen - inputs["ref_chosen_logps"],
            "rejected": rejected - inputs["ref_rejected_logps"],
            LABEL: inputs[LABEL],
        }

    def figures(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        ratios = list(zip(values["chosen"], values["rejected"], strict=True))
        (loss,) = (name for name, known in LOSSES.items() if known in self.args.loss_type)
        return preference_metrics(ratios, self.args.beta, loss, values[LABEL])


class _Seen:
    """A model that keeps the log-probabilities which TRL's loss is made from, and does not return."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.log_probs = torch.empty(0)

    def __call__(self, **inputs: Any) -> Any:
        found = self._model(**inputs)
        self.log_probs = found.log_probs
        return found


class PairCollator(KeepsLabels, DataCollatorForPreference):  # type: ignore[misc]
    """TRL's, with labels."""


def encode(tokenizer: Any, pair: Pair, reference: PairLikelihood) -> dict[str, Any]:
    """One pair as token ids, with the reference's log-probabilities.

    Raises:
        ValueError: the likelihoods belong to other pairs.
    """
    if (pair.problem_id, pair.index) != (reference.problem_id, reference.index):
        raise ValueError(
            f"Pair {pair.problem_id}/{pair.index} has the likelihood of {reference.problem_id}/{reference.index}."
        )
    chosen = answer_token_ids(tokenizer, pair.chosen, pair.chosen_token_ids)
    rejected = answer_token_ids(tokenizer, pair.rejected, pair.rejected_token_ids)
    return _row((prompt_token_ids(tokenizer, pair.messages), chosen, rejected), pair.label, reference)


def _row(sides: tuple[list[int], ...], label: float | None, reference: PairLikelihood) -> dict[str, Any]:
    return {
        **dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), sides, strict=True)),
        "ref_chosen_logps": reference.chosen,
        "ref_rejected_logps": reference.rejected,
        LABEL: 1.0 if label is None else label,
    }


def train(program: PreferenceProgram) -> None:
    """Train `program.policy` on the pairs and write a Hugging Face checkpoint to `program.output`."""
    config, output = program.train, program.output
    set_seed(program.seed)
    tokenizer = padded_tokenizer(program.policy, program.model_code)
    arguments = DPOConfig(  # before the model: ZeRO 3 shards it while loading
        **training_arguments(config, program.launch, program.seed, output),
        beta=config.beta,
        loss_type=[LOSSES[config.loss]],
        precompute_ref_log_probs=True,
    )
    model = load_policy(
        program.policy,
        config.dtype,
        config.quantize,
        program.model_code,
        program.launch.attention,
        bare=config.beside,
    )

    def rows() -> Iterator[dict[str, Any]]:
        for pairs, likelihoods in zip(program.pairs, program.reference, strict=True):
            for pair, known in zip(read_rows(Pair, pairs), read_rows(PairLikelihood, likelihoods), strict=True):
                yield encode(tokenizer, pair, known)

    adapter = adapter_of(config, program.seed)
    held_out = _held_out(program, tokenizer, room(model, adapter))
    trainer = PreferenceTrainer(
        model=attached(model, adapter, program.policy),
        args=arguments,
        train_dataset=rows_on_disk(output.parent, rows, FEATURES, arguments.main_process_first),
        eval_dataset=held_out_set(program.held_out, held_out, "chosen_ids"),
        processing_class=tokenizer,
        data_collator=PairCollator(pad_token_id(tokenizer)),
        peft_config=adapter.peft_config if adapter else None,
    )
    run_training(trainer, tokenizer, output, adapter, program.launch.evaluations)


def _held_out(program: PreferenceProgram, tokenizer: Any, context: int) -> list[dict[str, Any]]:
    """Held-out pairs that fit into the context and have reference log-probabilities."""
    if program.held_out is None or program.held_out_reference is None:
        return []
    reference = {(row.problem_id, row.index): row for row in read_rows(PairLikelihood, program.held_out_reference)}
    return [
        _row((row.prompt, *row.answers), row.label, reference[row.problem_id, row.index])
        for row in pair_answers(tokenizer, program.held_out, context)
        if (row.problem_id, row.index) in reference
    ]


if __name__ == "__main__":
    enter()
    train(PreferenceProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
