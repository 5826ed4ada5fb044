"""IA³ (arXiv 2205.05638): a learned vector rescales the outputs of a layer, or the inputs of a feed-forward layer."""

from typing import Any

import torch
from peft import IA3Config

from models.adapters.adapter import HEAD
from models.adapters.peft_adapter import PeftAdapter


class IA3(PeftAdapter):
    """IA³, as peft has it. The vectors begin as ones: a new adapter is the identity."""

    @property
    def peft_config(self) -> IA3Config:
        told = self.config.ia3
        return IA3Config(
            target_modules=list(told.targets),
            feedforward_modules=list(told.feedforward),
            modules_to_save=[HEAD] if self.training.reward else None,
            **self.task,
        )


def merged(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias, rescaled.

    Args:
        weight, bias: the frozen ones, in full precision.
    """
    vector = layer.ia3_l["default"].detach().flatten()
    if layer.is_feedforward:
        return weight * vector[None, :], bias
    return weight * vector[:, None], None if bias is None else bias * vector
