"""Bottleneck adapters (arXiv 1902.00751): y + U · gelu(D · y + d) + u after a sublayer, with a narrow layer between.

They are not linear, so they cannot be merged. The sublayers are the projections at the end of attention and of the
feed-forward layer, before the residual connection, as in the paper.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import RunFailedError
from models.adapters.adapter import Adapter, Tensors, head_of, matches, read_own, set_weights, train_head, write_own

OWN = (".down.weight", ".down.bias", ".up.weight", ".up.bias")


@dataclass
class Switch:
    """Whether the adapters of a model count."""

    on: bool = True


class Bottleneck(nn.Module):  # type: ignore[misc]
    """A linear layer that an adapter follows. `up` begins as zero, so that the whole is the layer alone."""

    def __init__(self, base_layer: nn.Linear, size: int, switch: Switch, dtype: torch.dtype) -> None:
        super().__init__()
        self.base_layer, self.switch = base_layer, switch
        width, device = base_layer.out_features, base_layer.weight.device
        self.down = nn.Linear(width, size, device=device, dtype=dtype)
        self.up = nn.Linear(size, width, device=device, dtype=dtype)
        nn.init.normal_(self.down.weight, std=0.01)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, which some models look at."""
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen bias."""
        found: torch.Tensor | None = self.base_layer.bias
        return found

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.base_layer(x)
        if not self.switch.on:
            return found
        told = found.to(self.down.weight.dtype)
        return found + self.up(nn.functional.gelu(self.down(told))).to(found.dtype)


class Bottlenecks(Adapter):
    """Bottleneck adapters. A new adapter is the identity."""

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self._switch = Switch()

    def attach(self, model: Any) -> Any:
        told = self.config.bottleneck
        self.model = model.requires_grad_(False)
        names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and matches(n, told.targets)]
        if not names:
            raise RunFailedError(
                "The targets of the bottleneck adapters are no linear layers of the usual kind, so nothing would be "
                "trained.",
                what_next="Choose other train.adapter.bottleneck.targets, or another train.adapter.kind.",
            )
        insert(model, names, told.size, self._switch)
        if self.training.reward:
            train_head(model)
        return model

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self._switch.on = False
        try:
            yield
        finally:
            self._switch.on = True

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        write_own(folder, self.config, self.beside() | head_of(weights))

    def beside(self) -> Tensors:
        layers = [(name, module) for name, module in self.model.named_modules() if isinstance(module, Bottleneck)]
        return {f"{name}{part}": layer.get_parameter(part[1:]).detach() for name, layer in layers for part in OWN}

    def go_on(self, folder: Path) -> None:
        set_weights(self.model, read_own(folder)[1])


def insert(model: Any, names: list[str], size: int, switch: Switch) -> None:
    """Put an adapter after each of the named layers."""
    dtype = model.get_input_embeddings().weight.dtype
    for name in names:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Bottleneck(model.get_submodule(name), size, switch, dtype))


def load(model: Any, folder: Path) -> Any:
    """The model with the trained adapters in `folder`."""
    put(model, read_own(folder)[1])
    return model


def put(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put adapters with these weights after layers, in place of those that are there."""
    first = {name.removesuffix(OWN[0]): weight for name, weight in tensors.items() if name.endswith(OWN[0])}
    if not isinstance(model.get_submodule(next(iter(first))), Bottleneck):
        insert(model, list(first), len(next(iter(first.values()))), Switch())
    set_weights(model, tensors)
