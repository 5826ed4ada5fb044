"""Supervised training on answer tokens, weighted by reward: TRL's SFTTrainer on DeepSpeed.

    python -m torch.distributed.run --nproc-per-node N -m models.train CONFIG.json

The loss of a batch B of (prompt x, answer y, reward r) is the reward-weighted negative log-likelihood of ReST-EM
(arXiv 2312.06585, equation 4), per answer token:

    L(θ) = − Σ_{(x,y,r) ∈ B}  r · Σ_t log p_θ(y_t | x, y_<t)  /  Σ_{(x,y,r) ∈ B} |y|

over the whole optimiser step, all devices and accumulation steps together. With every r = 1 it is plain SFT.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import pad

from data.render import completion_token_ids, context_length, prompt_token_ids
from data.rows import Example
from data.storage import read_rows
from models.config import TrainConfig, TrainProgram, gradient_accumulation
from models.progress import Progress

COMPLETE = "complete"
IGNORED = -100


class WeightedSFTTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the loss above."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        weights = inputs.pop("weights")
        outputs = model(**inputs, use_cache=False, fused_lm_head=True)
        items = inputs["labels"].ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = reward_weighted_nll(outputs.log_probs, weights, items)
        if num_items_in_batch is not None:
            # The answer tokens of all devices were counted, and DeepSpeed averages gradients over devices.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss


def reward_weighted_nll(
    log_probs: torch.Tensor, weights: torch.Tensor, answer_tokens: torch.Tensor | int
) -> torch.Tensor:
    """The loss at the top of this file.

    Args:
        log_probs: log-probability of each label given what precedes it, 0 outside the answers, shape (batch, length).
        weights: reward of each row, shape (batch,).
        answer_tokens: number of answer tokens in the whole optimiser step.
    """
    return -(weights[:, None] * log_probs).sum() / torch.as_tensor(answer_tokens).clamp(min=1)


class Collator:
    """Pads rows to the longest of the batch. Labels are the answer tokens; everything else is ignored."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        labels = [torch.tensor(row["labels"]) for row in rows]
        return {
            "input_ids": pad(ids, padding_value=self.pad_token_id),
            "attention_mask": pad([torch.ones_like(i) for i in ids], padding_value=0),
            "labels": pad(labels, padding_value=IGNORED),
            "weights": torch.tensor([row["weight"] for row in rows], dtype=torch.float32),
        }


def encode(tokenizer: Any, example: Example, context: int) -> dict[str, Any]:
    """One example as token ids and labels.

    Raises:
        ValueError: it does not fit into the context; nothing is cut silently.
    """
    prompt = prompt_token_ids(tokenizer, example.messages)
    completion = example.token_ids or completion_token_ids(tokenizer, example.completion)
    if len(prompt) + len(completion) > context:
        raise ValueError(
            f"The example of problem {example.problem_id} has {len(prompt)} + {len(completion)} tokens, more than the "
            f"context of {context}. Remove it or train a model with a longer context."
        )
    return {
        "input_ids": prompt + completion,
        "labels": [IGNORED] * len(prompt) + completion,
        "weight": example.weight,
    }


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, prints progress, and marks a checkpoint complete once it is wholly on disk."""

    def __init__(self, path: Path, resumed_step: int) -> None:
        self.path = path
        self.resumed_step = resumed_step
        self.progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.path.write_text("".join(lines_up_to(self.path, self.resumed_step)))
        self.progress = Progress("train", state.max_steps, "step", done=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        numbers = {name: float(value) for name, value in logs.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": state.global_step, **numbers}) + "\n")
        if self.progress:
            self.progress.update(state.global_step, f"loss {numbers['loss']:.4f}")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; one that was not is removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for unfinished in [p for p in found if not (p / COMPLETE).exists()]:
        shutil.rmtree(unfinished, ignore_errors=True)
    return next((p for p in reversed(found) if (p / COMPLETE).exists()), None)


def deepspeed_config(zero_stage: int, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's own configuration; "auto" values are filled in by the trainer."""
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": zero_stage,
            **({"stage3_gather_16bit_weights_on_model_save": True} if zero_stage == 3 else {}),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def training_arguments(program: TrainProgram, checkpoints: Path) -> SFTConfig:
    """TRL's arguments; everything that decides the result is spelled out rather than left to a default."""
    train, launch = program.train, program.launch
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.schedule,
        warmup_steps=train.warmup,
        optim={"adamw": "adamw_torch", "rmsprop": "rmsprop"}[train.optimizer],
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        per_device_train_batch_size=launch.micro_batch_size,
        gradient_accumulation_steps=gradient_accumulation(train, launch),
        gradient_checkpointing=launch.gradient_checkpointing,
        bf16=train.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        deepspeed=deepspeed_config(launch.zero_stage, train.dtype == "bfloat16"),
        seed=program.seed,
        data_seed=program.seed,
        logging_steps=launch.log_steps,
        save_strategy="steps",
        save_steps=launch.checkpoint_steps,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=0,
        average_tokens_across_devices=True,
        model_init_kwargs=None,
    )


def load_policy(path: Path, dtype: torch.dtype) -> Any:
    """The model at `path`; one without weights starts from random ones, which the seed decides."""
    if any(path.glob("*.safetensors")):
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=dtype)


def train(program: TrainProgram) -> None:
    """Train `program.policy` on the examples and write a Hugging Face checkpoint to `program.output`."""
    set_seed(program.seed)
    output = program.output
    checkpoints = output.parent / ".checkpoints"
    tokenizer = AutoTokenizer.from_pretrained(program.policy)
    arguments = training_arguments(program, checkpoints)  # before the model: ZeRO 3 shards it while loading
    model = load_policy(program.policy, _weights_dtype(program.train))
    examples = (example for path in program.examples for example in read_rows(Example, path))
    rows = [encode(tokenizer, example, context_length(model.config)) for example in examples]
    resume = last_checkpoint(checkpoints)
    journal = Journal(output.parent / "metrics.jsonl", int(resume.name.split("-")[1]) if resume else 0)
    trainer = WeightedSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=Collator(
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ),
        callbacks=[journal],
    )
    trainer.pop_callback(PrinterCallback)
    print(f"Training on {len(rows):,} examples" + (f", resumed from {resume.name}" if resume else ""), flush=True)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_model(str(output))
    if trainer.is_world_process_zero():
        tokenizer.save_pretrained(output)
        (output / "training_args.bin").unlink(missing_ok=True)


def _weights_dtype(config: TrainConfig) -> torch.dtype:
    return torch.bfloat16 if config.dtype == "bfloat16" else torch.float32


def lines_up_to(path: Path, step: int) -> list[str]:
    """The lines of a metrics.jsonl up to a step; a line that was torn by a kill ends them."""
    lines = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        lines.append(line)
    return lines


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    train(TrainProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
