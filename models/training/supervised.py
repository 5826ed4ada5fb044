"""Supervised training on answer tokens, weighted by reward: TRL's SFTTrainer on DeepSpeed.

    python -m models.training.supervised CONFIG.json    # several processes: by torch.distributed.run, see launch.py

The loss of a batch B of (prompt x, answer y, reward r) is the reward-weighted negative log-likelihood of ReST-EM
(arXiv 2312.06585, equation 4), per answer token:

    L(θ) = − Σ_{(x,y,r) ∈ B}  r · Σ_t log p_θ(y_t | x, y_<t)  /  Σ_{(x,y,r) ∈ B} |y|

over the whole optimizer step, all devices and accumulation steps together. With every r = 1 it is plain SFT.
"""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch
from transformers import set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from data.render import answer_token_ids, pad_token_id, prompt_and_answers
from data.rows import Example
from data.storage import read_rows
from models.adapters.trainer import LearnsAdapter
from models.config import TrainProgram
from models.training.answers import gold_answers
from models.training.attention import FLASH
from models.training.common import (
    IGNORED,
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
from models.training.rows import IDS, NUMBERS, rows_on_disk


class WeightedSFTTrainer(LearnsAdapter, MeasuresHeldOut, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the loss above. For held-out rows it is averaged over the answer tokens of all rows."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weights = inputs.pop("weights")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        items = inputs["labels"].ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = reward_weighted_nll(outputs.log_probs, weights[:, 1:], items)  # the first token is never a label
        if num_items_in_batch is not None:
            # Answer tokens are counted over all devices, but DeepSpeed averages gradients over devices.
            loss = loss * self.accelerator.num_processes
        loss = self.penalized(
            loss, model, self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        )
        return (loss, outputs) if return_outputs else loss

    def row_values(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        weights = inputs.pop("weights")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        losses = -(weights[:, 1:] * outputs.log_probs.float()).sum(dim=1)
        return {"loss": losses, "tokens": inputs["labels"].ne(IGNORED).sum(dim=1)}

    def figures(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        return {"loss": sum(values["loss"]) / sum(values["tokens"])}


def reward_weighted_nll(
    log_probs: torch.Tensor, weights: torch.Tensor, answer_tokens: torch.Tensor | int
) -> torch.Tensor:
    """The loss at the top of this file.

    Args:
        log_probs: log-probability of each label given what precedes it, 0 outside the answers, shape (batch, length).
        weights: reward of the answer that each label belongs to, same shape.
        answer_tokens: number of answer tokens in the whole optimizer step.
    """
    return -(weights * log_probs).sum() / torch.as_tensor(answer_tokens).clamp(min=1)


class Collator:
    """Pads rows to the longest of the batch. Labels are the answer tokens; everything else is ignored.

    Examples packed into one row do not see each other: positions restart with each, and attention goes by them.

    Args:
        in_one: join the packed rows of a batch. FlashAttention looks at positions only if there is one row.
    """

    def __init__(self, pad_token_id: int, in_one: bool = False) -> None:
        self.pad_token_id, self.in_one = pad_token_id, in_one

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if self.in_one and "seq_lengths" in rows[0]:
            rows = [{name: [value for row in rows for value in row[name]] for name in rows[0]}]
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        batch = {
            "input_ids": pad(ids, padding_value=self.pad_token_id),
            "labels": pad([torch.tensor(row["labels"]) for row in rows], padding_value=IGNORED),
            "weights": pad([torch.tensor(row["weights"], dtype=torch.float32) for row in rows], padding_value=0.0),
        }
        if "seq_lengths" in rows[0]:
            positions = [torch.cat([torch.arange(length) for length in row["seq_lengths"]]) for row in rows]
            return batch | {"position_ids": pad(positions, padding_value=0)}
        return batch | {"attention_mask": pad([torch.ones_like(i) for i in ids], padding_value=0)}


def encode(tokenizer: Any, example: Example, context: int, every_answer: bool = False) -> dict[str, Any]:
    """One example as token ids and labels.

    Args:
        every_answer: also learn the assistant's earlier answers in the prompt.

    Raises:
        ValueError: it does not fit into the context; nothing is cut silently.
    """
    prompt, answers = prompt_and_answers(tokenizer, example.messages)
    completion = answer_token_ids(tokenizer, example.completion, example.token_ids)
    if len(prompt) + len(completion) > context:
        raise ValueError(
            f"The example of problem {example.problem_id} has {len(prompt)} + {len(completion)} tokens, more than the "
            f"context of {context}. Remove it or train a model with a longer context."
        )
    labels = [i if every_answer and a else IGNORED for i, a in zip(prompt, answers, strict=True)]
    return labelled(prompt, labels, completion, example.weight)


def labelled(prompt: list[int], labels: list[int], answer: list[int], weight: float) -> dict[str, Any]:
    """A row of a prompt with its labels, and an answer whose tokens are all labels."""
    row = {"input_ids": prompt + answer, "labels": labels + answer}
    return row | {"weights": [weight] * len(row["input_ids"])}


def train(program: TrainProgram) -> None:
    """Train `program.policy` on the examples and write a Hugging Face checkpoint to `program.output`."""
    config, output = program.train, program.output
    set_seed(program.seed)
    tokenizer = padded_tokenizer(program.policy, program.model_code)
    arguments = SFTConfig(  # before the model: ZeRO 3 shards it while loading
        **training_arguments(config, program.launch, program.seed, output),
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        average_tokens_across_devices=True,
    )
    packed, choice = config.pack_to is not None, program.launch.attention
    model = load_policy(
        program.policy, config.dtype, config.quantize, program.model_code, choice, packed, bare=config.beside
    )
    adapter = adapter_of(config, program.seed)
    context = room(model, adapter)
    longest = min(context, config.pack_to or sys.maxsize)

    def rows() -> Iterator[dict[str, Any]]:
        for path in program.examples:
            for example in read_rows(Example, path):
                yield encode(tokenizer, example, longest, config.loss_on == "all")

    features = {"input_ids": IDS, "labels": IDS, "weights": NUMBERS}
    held_out = _held_out(program, tokenizer, context)
    trainer = WeightedSFTTrainer(
        model=attached(model, adapter, program.policy),
        args=arguments,
        train_dataset=rows_on_disk(output.parent, rows, features, arguments.main_process_first, config.pack_to),
        eval_dataset=held_out_set(program.held_out, held_out, "input_ids"),
        processing_class=tokenizer,
        data_collator=Collator(pad_token_id(tokenizer), model.config._attn_implementation == FLASH),
        peft_config=adapter.peft_config if adapter else None,
    )
    run_training(trainer, tokenizer, output, adapter, program.launch.evaluations)


def _held_out(program: TrainProgram, tokenizer: Any, context: int) -> list[dict[str, Any]]:
    """Held-out gold answers that fit into the context, as rows that are not packed."""
    found = gold_answers(tokenizer, program.held_out, context) if program.held_out else ()
    return [labelled(row.prompt, [IGNORED] * len(row.prompt), row.answers[0], 1.0) for row in found]


if __name__ == "__main__":
    enter()
    train(TrainProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
