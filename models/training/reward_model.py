"""Trains a reward model on pairs: TRL's RewardTrainer on DeepSpeed.

    python -m models.training.reward_model CONFIG.json    # several processes: by torch.distributed.run, see launch.py

A policy with a scalar output r(x, y) instead of its vocabulary learns that people preferred answer y to y'. The loss of
Bradley and Terry (1952), as in InstructGPT (arXiv 2203.02155, equation 1), with a margin m as in Llama 2 (arXiv
2307.09288, equation 2; here one for all pairs) and centered as in Eisenstein et al. (arXiv 2312.09244), is

    −log σ(z) + c · (r(x, y) + r(x, y'))²    with z = r(x, y) − r(x, y') − m

If a model labeled the pair, with a probability p that y is better, the first term becomes the cross-entropy of RLAIF
(arXiv 2309.00267, section 3.2.1), −p · log σ(z) − (1 − p) · log σ(−z)  =  −log σ(z) + (1 − p) · z.
"""

import gc
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch
from torch.nn.functional import logsigmoid
from transformers import set_seed
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference, suppress_seqcls_warning

from data.render import judged_token_ids, pad_token_id
from data.rows import Pair
from data.storage import read_rows
from models.adapters.trainer import LearnsAdapter
from models.config import RewardTrainProgram
from models.training.common import (
    adapter_of,
    attached,
    enter,
    leave,
    load_reward_model,
    padded_tokenizer,
    room,
    run_training,
    training_arguments,
)
from models.training.held_out import MeasuresHeldOut, held_out_set
from models.training.rows import IDS, LABEL, NUMBER, KeepsLabels, rows_on_disk


class PairRewardTrainer(LearnsAdapter, MeasuresHeldOut, RewardTrainer):  # type: ignore[misc]
    """RewardTrainer with labels, whose metrics of held-out pairs have the same names as those of training pairs."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **options: Any) -> Any:
        """TRL's loss, and what labels change in it."""
        labels, margin = inputs.pop(LABEL), inputs["margin"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if (labels < 1).any():
            chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
            loss = loss + ((1 - labels) * (chosen - rejected - margin)).mean()
        loss = self.penalized(loss, model)
        return (loss, outputs) if return_outputs else loss

    def row_values(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        margin, labels = inputs.pop("margin"), inputs.pop(LABEL)
        chosen, rejected = model(**inputs, use_cache=False).logits.float().squeeze(-1).chunk(2)
        centering, apart = self.args.center_rewards_coefficient or 0.0, chosen - rejected - margin
        losses = -logsigmoid(apart) + (1 - labels) * apart + centering * (chosen + rejected) ** 2
        accuracy, mean = (chosen > rejected).float(), (chosen + rejected) / 2
        return {"loss": losses, "accuracy": accuracy, "margin": chosen - rejected, "mean_reward": mean}

    def figures(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        return {name: sum(found) / len(found) for name, found in values.items()}


class RewardCollator(KeepsLabels, DataCollatorForPreference):  # type: ignore[misc]
    """TRL's, with labels."""


def encode(tokenizer: Any, pair: Pair, margin: float) -> dict[str, Any]:
    """One pair as token ids, each answer after its prompt."""
    row: dict[str, Any] = {"margin": margin, LABEL: 1.0 if pair.label is None else pair.label}
    for side, text in (("chosen_ids", pair.chosen), ("rejected_ids", pair.rejected)):
        prompt, answer = judged_token_ids(tokenizer, pair.messages, text)
        row[side] = prompt + answer
    return row


def train(program: RewardTrainProgram) -> None:
    """Train a reward model that starts from `program.policy`, and write a Hugging Face checkpoint to `program.output`.

    An adapter is written with the head to the sibling folder `adapter/` instead; `merge` makes a checkpoint from it.
    """
    config, output = program.train, program.output
    tokenizer = padded_tokenizer(program.policy, program.model_code)
    arguments = RewardConfig(  # before the model: ZeRO 3 shards it while loading
        **training_arguments(config, program.launch, program.seed, output),
        center_rewards_coefficient=config.centering or None,
    )
    set_seed(program.seed)  # right before the head gets its random weights
    with suppress_seqcls_warning():
        code, choice = program.model_code, program.launch.attention
        model = load_reward_model(
            program.policy, tokenizer, config.dtype, config.quantize, code, choice, bare=config.beside
        )

    def rows() -> Iterator[dict[str, Any]]:
        for pairs in program.pairs:
            for pair in read_rows(Pair, pairs):
                yield encode(tokenizer, pair, config.margin)

    features = {"margin": NUMBER, LABEL: NUMBER, "chosen_ids": IDS, "rejected_ids": IDS}
    adapter = adapter_of(config, program.seed, reward=True)
    held_out = _held_out(program, tokenizer, room(model, adapter))
    trainer = PairRewardTrainer(
        model=attached(model, adapter, program.policy),
        args=arguments,
        train_dataset=rows_on_disk(output.parent, rows, features, arguments.main_process_first),
        eval_dataset=held_out_set(program.held_out, held_out, "chosen_ids"),
        processing_class=tokenizer,
        data_collator=RewardCollator(pad_token_id(tokenizer)),
        peft_config=adapter.peft_config if adapter else None,
    )
    run_training(trainer, tokenizer, output, adapter, program.launch.evaluations)


def _held_out(program: RewardTrainProgram, tokenizer: Any, context: int) -> list[dict[str, Any]]:
    """Held-out pairs that fit into the context."""
    pairs = read_rows(Pair, program.held_out) if program.held_out else ()
    rows = (encode(tokenizer, pair, program.train.margin) for pair in pairs)
    return [row for row in rows if max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= context]


if __name__ == "__main__":
    enter()
    train(RewardTrainProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
