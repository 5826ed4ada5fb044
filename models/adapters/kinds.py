"""The kinds, by name: a new adapter to train, and a trained one in the weights that it belongs to."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft.tuners.adalora import AdaLoraLayer
from peft.tuners.ia3 import IA3Layer
from peft.tuners.lora import LoraLayer

from models.adapters import adalora, bitfit, bottleneck, diff_pruning, ia3, lora, virtual_tokens
from models.adapters.adapter import CONFIG, Adapter, Tensors, Training
from models.adapters.p_tuning import PTuning
from models.adapters.peft_adapter import load_peft
from models.adapters.prefix import Prefix
from models.adapters.prompt import Prompt
from models.adapters.settings import NUMBERS, AdapterConfig, Kind
from models.adapters.virtual_tokens import InFront, KeysInFront

Weights = tuple[torch.Tensor, torch.Tensor | None]
NEW: dict[Kind, type[Adapter]] = {
    "lora": lora.LoRA,
    "adalora": adalora.AdaLoRA,
    "ia3": ia3.IA3,
    "bitfit": bitfit.BitFit,
    "diff-pruning": diff_pruning.DiffPruning,
    "prompt": Prompt,
    "p-tuning": PTuning,
    "prefix": Prefix,
    "bottleneck": bottleneck.Bottlenecks,
}
OWN: dict[str, Callable[[Any, Path], Any]] = {"bitfit": bitfit.merge, "diff-pruning": diff_pruning.merge}
BESIDE: dict[str, Callable[[Any, Path], Any]] = {
    "PROMPT_TUNING": partial(virtual_tokens.load, hooks=InFront),
    "P_TUNING": partial(virtual_tokens.load, hooks=InFront),
    "PREFIX_TUNING": partial(virtual_tokens.load, hooks=KeysInFront),
    "bottleneck": bottleneck.load,
}
MERGED: list[tuple[type, Callable[[Any, torch.Tensor, torch.Tensor | None], Weights]]] = [
    (AdaLoraLayer, adalora.merged),
    (LoraLayer, lora.merged),
    (IA3Layer, ia3.merged),
    (diff_pruning.DiffLinear, diff_pruning.merged),
]


def new_adapter(config: AdapterConfig | None, training: Training) -> Adapter | None:
    """A new adapter to train; None trains all weights."""
    return None if config is None else NEW[config.kind](config, training)


def merge_trained(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` merged into its weights.

    Args:
        model: the one that the adapter was trained on, in full precision.
    """
    merge = OWN.get(kind_of(folder))
    return merge(model, folder) if merge else load_peft(model, folder).merge_and_unload()


def load_unmerged(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder` attached, of a kind that cannot be merged. It is not trained."""
    return BESIDE[kind_of(folder)](model, folder)


def set_beside(model: Any, kind: Kind, tensors: Tensors) -> None:
    """Attach an adapter of a kind that cannot be merged, or give it other numbers.

    Args:
        tensors: what `Adapter.beside` gave.
    """
    if kind == "bottleneck":
        bottleneck.put(model, tensors)
    else:
        virtual_tokens.put(model, tensors[NUMBERS], KeysInFront if kind == "prefix" else InFront)


def kind_of(folder: Path) -> str:
    """The kind of the adapter in `folder`: peft's name, or our own."""
    told = json.loads((folder / CONFIG).read_text())
    return str(told.get("peft_type") or told["kind"])


def merger(layer: Any) -> Callable[[Any, torch.Tensor, torch.Tensor | None], Weights] | None:
    """How a layer's update is merged into its weight and bias; None for a layer without one."""
    return next((found for kind, found in MERGED if isinstance(layer, kind)), None)
