"""Shared by the training programs: policies, arguments of the trainers, adapters, resuming, the journal."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers
from transformers import BitsAndBytesConfig, PrinterCallback, TrainerCallback

from data.render import context_length, pad_token_id
from data.wording import counted
from models.adapters.adapter import HEAD, Adapter, Training
from models.adapters.kinds import new_adapter
from models.adapters.settings import AdapterConfig
from models.adapters.trainer import AdapterCallback
from models.config import (
    Attention,
    Dtype,
    LaunchConfig,
    ModelCode,
    Offload,
    Optimizer,
    TrainConfig,
    gradient_accumulation,
)
from models.loading import Kind, load_config, load_tokenizer, load_weights, random_weights, unmerged
from models.process import end, fail_plainly, keep_imports
from models.progress import Progress
from models.training.attention import attention
from models.training.held_out import Evaluations, held_out_figures

COMPLETE = "complete"
TRAINABLE = "_hf_peft_config_loaded"  # by this the trainer tells that not the 4-bit weights themselves are trained
IGNORED = -100
CHECKPOINTS, ADAPTER = ".checkpoints", "adapter"
# What PyTorch's launcher would set for a single process. Port 0 picks a free one.
ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
ALONE |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
PATIENCE = 86_400  # seconds that processes wait for the one that renders the rows of all
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class FreshOptimizer(TrainerCallback):  # type: ignore[misc]
    """Makes the optimizer start at its first step.

    DeepSpeed's optimizer for bf16 without ZeRO is initialized by a step with zero gradients. AdamW counts that step,
    would correct its moments one step late, and make a first update of 0.74 of its length. With ZeRO there is no such
    step.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        while hasattr(optimizer, "optimizer"):  # Accelerate's and DeepSpeed's wrappers
            optimizer = optimizer.optimizer
        optimizer.state.clear()


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, prints progress, and marks a checkpoint complete once it is entirely on disk.

    A line is about training, or (with names such as `held_out/loss`) about held-out rows after the same step.

    Transformers saves after the last step whatever `save_steps` is. `save_last=False` prevents that.
    """

    def __init__(self, path: Path, resumed_step: int, save_last: bool = True) -> None:
        self.path = path
        self.resumed_step = resumed_step
        self.save_last = save_last
        self.progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.path.write_text("".join(lines_up_to(self.path, self.resumed_step)))
        self.progress = Progress("train", state.max_steps, "step", done=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero or not logs:
            return
        numbers = held_out_figures(logs)
        if "loss" in logs:
            numbers = {name: float(value) for name, value in logs.items()}
            if self.progress:
                self.progress.update(state.global_step, f"loss {numbers['loss']:.4f}")
        if numbers:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **numbers}) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps and not self.save_last:
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; incomplete ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for unfinished in [p for p in found if not (p / COMPLETE).exists()]:
        shutil.rmtree(unfinished, ignore_errors=True)
    return next((p for p in reversed(found) if (p / COMPLETE).exists()), None)


def deepspeed_config(launch: LaunchConfig, bf16: bool) -> dict[str, Any]:
    """DeepSpeed's configuration; the trainer fills in "auto" values."""
    in_memory = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": bf16},
        "zero_optimization": {
            "stage": launch.zero_stage,
            **({"stage3_gather_16bit_weights_on_model_save": True} if launch.zero_stage == 3 else {}),
            **({"offload_optimizer": in_memory} if launch.offload != "none" else {}),
            **({"offload_param": in_memory} if launch.offload == "all" else {}),
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
    }


def training_arguments(train: TrainConfig, launch: LaunchConfig, seed: int, output: Path) -> dict[str, Any]:
    """Arguments of TRL's trainers; everything that decides the result is explicit rather than left to a default.

    Raises:
        ValueError: the number of processes differs from `launch`, so the batch size would differ.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes != launch.processes:
        raise ValueError(
            f"launch.processes is {launch.processes}, but the number of processes is {processes}. Start the program "
            f"with torch.distributed.run and --nproc-per-node {launch.processes}."
        )
    return {
        "output_dir": str(output.parent / CHECKPOINTS),
        "num_train_epochs": train.epochs,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.schedule,
        "warmup_steps": train.warmup,
        "optim": _optimizer(train.optimizer, launch.offload),
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "per_device_train_batch_size": launch.micro_batch_size,
        "per_device_eval_batch_size": launch.micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation(train, launch),
        "gradient_checkpointing": bool(launch.gradient_checkpointing),
        "bf16": train.dtype == "bfloat16",
        "use_cpu": not torch.cuda.is_available(),
        "deepspeed": deepspeed_config(launch, train.dtype == "bfloat16"),
        "seed": seed,
        "data_seed": seed,
        "logging_steps": launch.log_steps,
        "save_strategy": "steps",
        "save_steps": launch.checkpoint_steps,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "max_length": None,
        "remove_unused_columns": False,
        "ddp_timeout": PATIENCE,
        "dataloader_num_workers": 0,
        "model_init_kwargs": None,
    }


def _optimizer(name: Optimizer, offload: Offload) -> str:
    """Transformers' name of an optimizer. On a GPU, the fused AdamW, which needs no copy of the weights."""
    adamw = "adamw_torch_fused" if torch.cuda.is_available() and offload == "none" else "adamw_torch"
    return {"adamw": adamw, "rmsprop": "rmsprop"}[name]


def load_policy(
    path: Path,
    dtype: Dtype,
    quantize: bool = False,
    code: ModelCode = "refuse",
    choice: Attention = "auto",
    packed: bool = False,
    bare: bool = False,
) -> Any:
    """The model at `path`, in 4 bits if requested. A folder without weights gets random ones, decided by the seed.

    Args:
        choice, packed: see `attention`.
        bare: see `load_weights`.
    """
    config = load_config(path, code)
    more: dict[str, Any] = attention(choice, dtype, config, packed)
    if not quantize and not any(path.glob("*.safetensors")):
        return random_weights(config, code, dtype=DTYPES[dtype], **more)
    more |= {"quantization_config": _nf4(dtype)} if quantize else {}
    return load_weights("AutoModelForCausalLM", path, code, bare, dtype=DTYPES[dtype], **more)


def load_reward_model(
    path: Path,
    tokenizer: Any,
    dtype: Dtype,
    quantize: bool = False,
    code: ModelCode = "refuse",
    choice: Attention = "auto",
    bare: bool = False,
) -> Any:
    """The model at `path` with a scalar output, in 4 bits if requested (except the head).

    A policy gets a new, randomly initialized head, which the seed decides. The reward is read at the last token that is
    not padding: if the tokenizer pads with EOS, at the token before it, as in every other use of such a checkpoint.
    Padding on the right therefore changes no reward.

    Args:
        bare: see `load_weights`.
    """
    more: dict[str, Any] = attention(choice, dtype, load_config(path, code))
    more |= {"quantization_config": _nf4(dtype, llm_int8_skip_modules=[HEAD])} if quantize else {}
    kind: Kind = "AutoModelForSequenceClassification"
    model = load_weights(kind, path, code, bare, num_labels=1, dtype=DTYPES[dtype], **more)
    model.config.get_text_config().pad_token_id = pad_token_id(tokenizer)
    return model


def _nf4(dtype: Dtype, **more: Any) -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[dtype],
        **more,
    )


def adapter_of(train: TrainConfig, seed: int, reward: bool = False, drawn: bool = True) -> Adapter | None:
    """The new adapter to train, if there is to be one.

    Args:
        reward, drawn: see `Training`.
    """
    return new_adapter(train.adapter, Training(train.learning_rate, seed, reward, drawn))


def attached(model: Any, adapter: Adapter | None, start: Path) -> Any:
    """What a trainer of TRL's gets: the model with the adapter, unless peft has it and the trainer attaches it itself.

    Args:
        start: the policy that training starts from. An adapter beside its weights is gone on from.
    """
    if adapter is None or adapter.peft_config is not None:
        return model
    model = adapter.attach(model)
    if adapter.config.quantize:  # or Transformers' trainer refuses to train on 4-bit weights
        setattr(model, TRAINABLE, True)
    if (before := unmerged(start)) is not None:
        adapter.go_on(before)
    return model


def room(model: Any, adapter: Adapter | None) -> int:
    """The model's context in tokens, without virtual ones that an adapter puts in front."""
    return context_length(model.config) - (adapter.config.tokens if adapter else 0)


def run_training(
    trainer: Any, tokenizer: Any, output: Path, adapter: Adapter | None = None, evaluations: int = 0
) -> None:
    """Train to the end, from the last checkpoint if there is one, and write the new policy to `output`.

    An adapter is written to the sibling folder `adapter/` instead, and `merge` makes a policy from it. Held-out rows,
    if the trainer has any, are measured `evaluations` times during training.
    """
    resume = last_checkpoint(output.parent / CHECKPOINTS)
    step = int(resume.name.split("-")[1]) if resume else 0
    if adapter is not None:
        trainer.adapter = adapter
        _restore_format(trainer, adapter.config)
        adapter.ready(trainer.model)
        if adapter.watches:
            trainer.add_callback(AdapterCallback(trainer, adapter, resume))  # before what marks a checkpoint complete
    # An adapter's last checkpoint is small, and saves retraining if the merge after it fails. With all weights trained,
    # it would be several times as large as the policy, which is written next.
    trainer.add_callback(Journal(output.parent / "metrics.jsonl", step, save_last=adapter is not None))
    if not resume:
        trainer.add_callback(FreshOptimizer())
    trainer.pop_callback(PrinterCallback)
    if evaluations and trainer.eval_dataset is not None:
        trainer.add_callback(Evaluations(evaluations))
        print(f"{counted(len(trainer.eval_dataset), 'held-out row')} measured during training", flush=True)
    if resume:
        print(f"Resumed from {resume.name}", flush=True)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if adapter is not None:
        spread = trainer.accelerator.state.deepspeed_plugin.zero_stage == 3
        model = trainer.model
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if spread else model.state_dict()
        if trainer.is_world_process_zero():
            adapter.save(output.with_name(ADAPTER), weights)
        return
    trainer.save_model(str(output))
    if trainer.is_world_process_zero():
        (output / "training_args.bin").unlink(missing_ok=True)
        tokenizer.save_pretrained(output)


def _restore_format(trainer: Any, adapter: AdapterConfig) -> None:
    """On 4-bit weights, TRL casts everything trained to bfloat16: right for LoRA, too coarse for vectors and heads."""
    if not adapter.quantize:
        return
    vars(trainer.model).pop(TRAINABLE, None)
    for name, weight in trainer.model.named_parameters():
        if weight.requires_grad and (adapter.kind != "lora" or HEAD in name.split(".")):
            weight.data = weight.data.to(torch.bfloat16 if trainer.args.bf16 else torch.float32)


def padded_tokenizer(folder: Path, code: ModelCode) -> Any:
    """The tokenizer of a model to train. TRL requires a padding token."""
    tokenizer = load_tokenizer(folder, code)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad_token_id(tokenizer))
    return tokenizer


def enter() -> None:
    """Set up a training program's process; end it with `leave`."""
    quiet()
    import deepspeed.ops  # looks for an accelerator at once

    # PyTorch's launcher sets this. RANK alone may come from a cluster, and mean other processes.
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        os.environ.update(ALONE)
    # The only operator that DeepSpeed would compile is for tensor-parallel inference on a CPU. Without it the first
    # training needs no compiler and saves a minute, and no start probes the compiler.
    deepspeed.ops.__compatible_ops__ = {}


def quiet() -> None:
    """Set up a program's process: the CPU as accelerator if there is no other, and no noise in the log."""
    fail_plainly()
    keep_imports()
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def leave() -> NoReturn:
    """End a program's processes together: one that ends first can abort another."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    end()


def lines_up_to(path: Path, step: int) -> list[str]:
    """The lines of a metrics.jsonl up to a step, or up to a line torn by a kill."""
    lines = []
    for line in path.read_text().splitlines(keepends=True) if path.exists() else []:
        if not line.endswith("\n") or json.loads(line)["step"] > step:
            break
        lines.append(line)
    return lines
