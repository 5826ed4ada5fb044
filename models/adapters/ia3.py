"""IA³ (arXiv 2205.05638): a learned vector rescales the outputs of a layer, or the inputs of a feed-forward layer."""

from typing import Any

import torch
from peft import IA3Config
from peft.tuners.ia3 import IA3Layer

from models.adapters.adapter import HEAD
from models.adapters.peft_adapter import PeftAdapter


class IA3(PeftAdapter):
    """IA³, as peft has it. The vectors begin as ones: a new adapter is the identity."""

    undecayed = ("ia3_l",)

    @property
    def peft_config(self) -> IA3Config:
        told = self.config.ia3
        return IA3Config(
            target_modules=list(told.targets),
            feedforward_modules=list(told.feedforward),
            modules_to_save=[HEAD] if self.training.reward else None,
            **self.task,
        )

    def ready(self, model: Any) -> None:
        super().ready(model)
        if self.config.quantize:  # peft's 4-bit layers return float32, whatever they are given
            for layer in model.modules():
                if isinstance(layer, IA3Layer):
                    layer.register_forward_hook(lambda _, given, found: found.to(given[0].dtype))


def merged(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias, rescaled.

    Args:
        weight, bias: the frozen ones.
    """
    vector = layer.ia3_l["default"].detach().flatten()
    of_inputs = layer.is_feedforward != layer.fan_in_fan_out  # GPT-2's layers have inputs before outputs
    scaled = weight * (vector[None, :] if of_inputs else vector[:, None])
    return scaled, bias if bias is None or layer.is_feedforward else bias * vector
