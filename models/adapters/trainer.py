"""Adapters in TRL's trainers: their part of the loss, and what they do at every optimizer step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from models.adapters.adapter import Adapter

STATE = "adapter_state.safetensors"


class LearnsAdapter:
    """A mixin for trainers. `adapter` is set before training begins."""

    adapter: Adapter | None = None

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """Weights that decay: not those that begin as something else than zero and mean that."""
        found: list[str] = super().get_decay_parameter_names(model)  # type: ignore[misc]
        left_out = self.adapter.undecayed if self.adapter else ()
        return [name for name in found if not any(part in name for part in left_out)]

    def create_optimizer(self, *told: Any, **named: Any) -> Any:
        """The Trainer's, with groups of their own for weights that have another learning rate."""
        optimizer = super().create_optimizer(*told, **named)  # type: ignore[misc]
        if self.adapter and self.adapter.rated:
            with_own_rate(optimizer, self.adapter, "lr", lambda rate, times: rate * times)
        return optimizer

    def penalized(self, loss: torch.Tensor, model: Any, parts: int = 1) -> torch.Tensor:
        """A loss, and what the adapter adds to it in training.

        Args:
            parts: losses of which the sum is trained on, not the mean.
        """
        if self.adapter is None or not self.adapter.watches or not model.training:
            return loss
        penalty = self.adapter.penalty()
        return loss if penalty is None else loss + penalty / parts


def with_own_rate(optimizer: Any, adapter: Adapter, name: str, change: Callable[[float, float], float]) -> None:
    """Give an adapter's rated weights groups of their own.

    Args:
        name: of what differs in those groups.
        change: from its value in the others, or 1, and the adapter's factor, to that value.
    """
    rated = {
        id(weight)
        for called, weight in adapter.model.named_parameters()
        if any(part in called for part in adapter.rated)
    }
    for group in [*optimizer.param_groups]:
        own = [weight for weight in group["params"] if id(weight) in rated]
        if own:
            group["params"] = [weight for weight in group["params"] if id(weight) not in rated]
            told = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group(told | {"params": own, name: change(group.get(name, 1.0), adapter.rate)})
    optimizer.param_groups = [group for group in optimizer.param_groups if group["params"]]


class AdapterCallback(TrainerCallback):  # type: ignore[misc]
    """Tells an adapter of every optimizer step, and keeps its state in checkpoints.

    Accelerate makes a step and zeroes the gradients inside `backward`, so the engine's own `step` is watched.
    """

    def __init__(self, trainer: Any, adapter: Adapter, resumed: Path | None) -> None:
        self._trainer, self._adapter, self._resumed = trainer, adapter, resumed

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        adapter, engine = self._adapter, self._trainer.model_wrapped
        adapter.optimizer = engine.optimizer
        adapter.begin(state.max_steps, state.global_step)
        if self._resumed is not None and (self._resumed / STATE).exists():
            adapter.load_state(load_file(self._resumed / STATE))
        made = engine.step

        def step(*told: Any, **named: Any) -> None:
            adapter.before_update()
            made(*told, **named)
            adapter.after_update()

        engine.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and (kept := self._adapter.state()):
            tensors = {name: value.detach().cpu().contiguous() for name, value in kept.items()}
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / STATE)
