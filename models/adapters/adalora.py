"""AdaLoRA (arXiv 2303.10512): updates P·Λ·Q whose ranks fall to a common budget, where they matter least.

The importance of a number is |w · ∂L/∂w|, smoothed, times the smoothed deviation from that; that of a rank is the sum
over its singular value and the means of its vectors. peft has the modules and the allocation. Here
they work with DeepSpeed, which makes an update and zeroes the gradients in one call, and go on after a stop.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig

from models.adapters.adapter import HEAD, Tensors, Training
from models.adapters.peft_adapter import PeftAdapter
from models.adapters.settings import AdapterConfig

SMOOTHED = ("exp_avg_ipt", "exp_avg_unc")  # peft's names of smoothed importance, and of its deviation


class AdaLoRA(PeftAdapter):
    """AdaLoRA with peft's modules. Singular values begin as zero: a new adapter is the identity."""

    watches = True

    def __init__(self, config: AdapterConfig, training: Training) -> None:
        super().__init__(config, training)
        self._kept: dict[str, list[bool]] | None = None  # ranks that stay, by singular values

    @property
    def peft_config(self) -> AdaLoraConfig:
        told = self.config.adalora
        return AdaLoraConfig(
            target_r=told.rank,
            init_r=told.initial_rank,
            lora_alpha=told.alpha,
            lora_dropout=0.0,
            target_modules=list(told.targets),
            deltaT=told.interval,
            beta1=told.smoothing,
            beta2=told.smoothing,
            orth_reg_weight=0.0,  # `penalty` adds it to whatever loss is trained
            total_step=2,  # of which `begin` says more
            modules_to_save=[HEAD] if self.training.reward else None,
            **self.task,
        )

    @property
    def _allocator(self) -> Any:
        return self.model.base_model.rankallocator

    @property
    def _inner(self) -> Any:
        """The model as the allocator names its weights."""
        return self.model.base_model.model

    def begin(self, steps: int, step: int = 0) -> None:
        super().begin(steps, step)
        told, peft_config = self.config.adalora, self._allocator.peft_config
        peft_config.total_step = steps
        peft_config.tinit = int(told.begin * steps)
        peft_config.tfinal = steps - max(peft_config.tinit + 1, round(told.end * steps))

    def penalty(self) -> torch.Tensor | None:
        """γ times the mean of ‖PᵀP − I‖ and ‖QQᵀ − I‖ (Frobenius) over all updates, as in peft.

        The paper adds up the squares.
        """
        found = []
        for name, weight in self.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = weight @ weight.T if "lora_A" in name else weight.T @ weight
                found.append(torch.linalg.norm(product - torch.eye(len(product), device=product.device)))
        return self.config.adalora.orthogonality * torch.stack(found).mean()

    def before_update(self) -> None:
        if self.step < self._last:
            self._allocator.update_ipt(self._inner)

    def after_update(self) -> None:
        super().after_update()
        allocator = self._allocator
        if self.step < self._last:
            budget, due = allocator.budget_schedule(self.step)
            if due:
                self._keep(allocator.mask_to_budget(self._inner, budget))
        elif self.step == self._last:
            self._keep(allocator.mask_to_budget(self._inner, allocator.target_bgt))
            allocator.reset_ipt()
        elif self._kept is not None:
            allocator.mask_using_rank_pattern(self._inner, self._kept)
            self._write_through()

    @property
    def _last(self) -> int:
        """The step after which ranks stay as they are."""
        peft_config = self._allocator.peft_config
        return int(peft_config.total_step - peft_config.tfinal)

    def _keep(self, kept: dict[str, list[bool]]) -> None:
        self._kept = self._allocator.peft_config.rank_pattern = kept
        self._write_through()

    def _write_through(self) -> None:
        """Write singular values that became zero to the optimizer's own copies: ZeRO's, or those of 16-bit weights."""
        from deepspeed.utils import safe_set_full_fp32_param  # looks for an accelerator at once

        ours, theirs = (getattr(self.optimizer, name, ()) for name in ("fp16_groups", "fp32_groups"))
        pairs = [pair for groups in zip(ours, theirs, strict=True) for pair in zip(*groups, strict=True)]
        copies = {id(weight): copy for weight, copy in pairs}
        for name, weight in self.model.named_parameters():
            if "lora_E" in name and hasattr(weight, "_hp_mapping"):
                safe_set_full_fp32_param(weight, weight.detach().float())
            elif "lora_E" in name and id(weight) in copies:
                copies[id(weight)].data.copy_(weight.detach())

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the ranks that stay; all of them while that changes."""
        self._allocator.peft_config.rank_pattern = None if self.step < self._last else self._kept
        super().save(folder, weights)

    def state(self) -> Tensors:
        found = {f"{kind}/{name}": value for kind in SMOOTHED for name, value in getattr(self._allocator, kind).items()}
        return found | {f"kept/{name}": torch.tensor(kept) for name, kept in (self._kept or {}).items()}

    def load_state(self, state: Tensors) -> None:
        kept = {}
        for name, value in state.items():
            kind, _, of = name.partition("/")
            if kind == "kept":
                kept[of] = value.tolist()
            else:
                getattr(self._allocator, kind)[of] = value.to(self.model.device)
        self._allocator.ipt = dict.fromkeys(self._allocator.exp_avg_ipt)  # made anew at every step
        if kept:
            self._kept = self._allocator.peft_config.rank_pattern = kept


def merged(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias with its update, which peft's 4-bit layers do not tell.

    Args:
        weight, bias: the frozen ones.
    """
    p, values, q = (part["default"].detach() for part in (layer.lora_B, layer.lora_E, layer.lora_A))
    scale = layer.scaling["default"] / (layer.ranknum["default"] + 1e-5)
    update = p @ (q * values) * scale
    return weight + (update.T if layer.fan_in_fan_out else update), bias
