"""The kinds, by name: a new adapter to train, and a trained one in the weights that it belongs to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft.tuners.adalora import SVDLinear
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer

from models.adapters import bitfit, diff_pruning, ia3, lora
from models.adapters.adalora import AdaLoRA
from models.adapters.adapter import CONFIG, Adapter, Training
from models.adapters.peft_adapter import load_peft
from models.adapters.settings import AdapterConfig, Kind

Weights = tuple[torch.Tensor, torch.Tensor | None]
NEW: dict[Kind, type[Adapter]] = {
    "lora": lora.LoRA,
    "adalora": AdaLoRA,
    "ia3": ia3.IA3,
    "bitfit": bitfit.BitFit,
    "diff-pruning": diff_pruning.DiffPruning,
}
OWN: dict[str, Callable[[Any, Path], Any]] = {"bitfit": bitfit.merge, "diff-pruning": diff_pruning.merge}
MERGED: list[tuple[type, Callable[[Any, torch.Tensor, torch.Tensor | None], Weights]]] = [
    (SVDLinear, lora.merged),
    (LoraLayer, lora.merged),
    (IA3Layer, ia3.merged),
    (diff_pruning.DiffLinear, diff_pruning.merged),
]


def new_adapter(config: AdapterConfig | None, training: Training) -> Adapter | None:
    """A new adapter to train, which starts as the identity; None trains all weights."""
    return None if config is None else NEW[config.kind](config, training)


def merge_trained(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` merged into its weights.

    Args:
        model: the one that the adapter was trained on, in full precision.
    """
    told = json.loads((folder / CONFIG).read_text())
    if "peft_type" in told:
        return load_peft(model, folder).merge_and_unload()
    return OWN[told["kind"]](model, folder)


def merger(layer: Any) -> Callable[[Any, torch.Tensor, torch.Tensor | None], Weights] | None:
    """How a layer's update is merged into its weight and bias; None for a layer without one."""
    return next((found for kind, found in MERGED if isinstance(layer, kind)), None)
