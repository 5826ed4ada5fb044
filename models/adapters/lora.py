"""LoRA (arXiv 2106.09685): W + (alpha / rank) · B·A with small matrices A and B, of which B begins as zero.

rsLoRA (arXiv 2312.03732) scales by alpha / √rank. DoRA (arXiv 2402.09353) trains the norm of each row of the result
separately: m · (W + ΔW) / ‖W + ΔW‖, where m begins as ‖W‖.
"""

from typing import Any

import torch
from peft import LoraConfig

from models.adapters.adapter import HEAD
from models.adapters.peft_adapter import PeftAdapter


class LoRA(PeftAdapter):
    """LoRA, as peft has it. A new adapter is the identity."""

    undecayed = ("lora_magnitude_vector",)

    @property
    def peft_config(self) -> LoraConfig:
        told = self.config
        return LoraConfig(
            r=told.rank,
            lora_alpha=told.alpha,
            lora_dropout=told.dropout,
            target_modules=list(told.targets),
            use_dora=told.dora,
            use_rslora=told.rslora,
            bias="none",
            modules_to_save=[HEAD] if self.training.reward else None,
            **self.task,
        )


def merged(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias with its update.

    Args:
        weight, bias: the frozen ones.
    """
    found = weight + layer.get_delta_weight("default").detach()
    norms = getattr(layer, "lora_magnitude_vector", {})
    if "default" in norms:
        rows = found.T if layer.fan_in_fan_out else found  # GPT-2's layers have inputs before outputs
        rows = rows * (norms["default"].weight.detach() / torch.linalg.norm(rows, dim=1))[:, None]
        found = rows.T if layer.fan_in_fan_out else rows
    return found, bias
