"""Diff pruning (arXiv 2012.07463): W + z ⊙ w with a difference w and gates z, most of which close.

A gate is hard-concrete (arXiv 1712.01312), with u uniform on (0, 1) and log α trained:

    s = σ(log u − log(1 − u) + log α),    z = min(1, max(0, s · (r − l) + l)),    l = −1.5, r = 1.5

and is open with probability σ(log α − log(−l / r)), whose sum over all gates, times λ, is added to the loss. At
evaluation, log u − log(1 − u) is 0. In the last part of training the largest |z · w| are kept, by the density asked
for; their gates stay as they are, the others are closed for good.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.errors import RunFailedError
from models.adapters.adapter import Adapter, Tensors, head_of, matches, read_own, set_weights, train_head, write_own

LOW, HIGH = -1.5, 1.5
FIXED = "fixed_"
INDICES, VALUES = ".indices", ".values"
PRIME = 1_000_003


@dataclass
class Moment:
    """What all layers have to know: the update at hand, and whether the difference counts at all."""

    seed: int
    drawn: bool
    step: int = 0
    enabled: bool = True
    fixed: bool = False


def gate(log_alpha: torch.Tensor, noise: torch.Tensor | float) -> torch.Tensor:
    """The hard-concrete gate z.

    Args:
        noise: log u − log(1 − u); 0 at evaluation.
    """
    return (torch.sigmoid(noise + log_alpha) * (HIGH - LOW) + LOW).clamp(0.0, 1.0)


def open_probability(log_alpha: torch.Tensor) -> torch.Tensor:
    """The probability that a gate is not 0."""
    return torch.sigmoid(log_alpha - math.log(-LOW / HIGH))


class DiffLinear(nn.Module):  # type: ignore[misc]
    """A linear layer with a gated difference to its weight and its bias.

    Args:
        opening: log α at the beginning.
        number: of the layer in the model, which decides its noise.
    """

    def __init__(self, base_layer: nn.Linear, opening: float, groups: bool, moment: Moment, number: int) -> None:
        super().__init__()
        self.base_layer, self.groups, self.moment, self.number = base_layer, groups, moment, number
        self.kinds = ["weight"] + (["bias"] if base_layer.bias is not None else [])
        for kind in self.kinds:
            base = getattr(base_layer, kind)
            self.register_parameter(f"diff_{kind}", nn.Parameter(torch.zeros_like(base)))
            self.register_parameter(f"gate_{kind}", nn.Parameter(torch.full_like(base, opening)))
            if groups:
                self.register_parameter(f"group_{kind}", nn.Parameter(base.new_full((1,), opening)))
            self.register_buffer(f"{FIXED}{kind}", torch.zeros_like(base))

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
        if not self.moment.enabled:
            return self.base_layer(x)
        weight = self.base_layer.weight + self.difference("weight")
        bias = self.base_layer.bias
        return nn.functional.linear(x, weight, None if bias is None else bias + self.difference("bias"))

    def difference(self, kind: str) -> torch.Tensor:
        """z ⊙ w of the weight or the bias. While training, gates are drawn; the same in all passes of an update."""
        return self._gated(kind, self.training)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def at_evaluation(self, kind: str) -> torch.Tensor:
        """z ⊙ w without noise."""
        return self._gated(kind, False)

    def _gated(self, kind: str, drawn: bool) -> torch.Tensor:
        diff: torch.Tensor = getattr(self, f"diff_{kind}")
        if self.moment.fixed:
            return getattr(self, f"{FIXED}{kind}") * diff
        return self._gates(kind, drawn).to(diff.dtype) * diff if self.moment.drawn else diff

    def log_alphas(self, kind: str) -> list[torch.Tensor]:
        """log α of the gates of each number, and with groups that of the gate of all."""
        found = [getattr(self, f"gate_{kind}")] + ([getattr(self, f"group_{kind}")] if self.groups else [])
        return [trained.float() for trained in found]

    def _gates(self, kind: str, drawn: bool) -> torch.Tensor:
        alphas = enumerate(self.log_alphas(kind))
        found = [gate(alpha, self._noise(kind, alpha, number) if drawn else 0.0) for number, alpha in alphas]
        return found[0] * found[1] if self.groups else found[0]

    def _noise(self, kind: str, like: torch.Tensor, number: int) -> torch.Tensor:
        place = (self.number * 2 + self.kinds.index(kind)) * 2 + number
        seed = ((self.moment.seed * PRIME + self.moment.step) * PRIME + place) % 2**63
        generator = torch.Generator(like.device).manual_seed(seed)
        drawn = torch.rand(like.shape, generator=generator, device=like.device).clamp(1e-6, 1 - 1e-6)
        return torch.logit(drawn)

    def expected_open(self) -> torch.Tensor:
        """The expected number of open gates."""
        found = []
        for kind in self.kinds:
            chances = [open_probability(alpha) for alpha in self.log_alphas(kind)]
            found.append((chances[0] * chances[1] if self.groups else chances[0]).sum())
        return torch.stack(found).sum()


class DiffPruning(Adapter):
    """A sparse difference as an adapter. It begins as zero: a new adapter is the identity."""

    watches = True
    undecayed = rated = ("gate_weight", "gate_bias", "group_")

    @property
    def rate(self) -> float:
        return self.config.diff_pruning.gate_learning_rate / self.training.learning_rate

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self._moment = Moment(self.training.seed, self.training.drawn)

    def attach(self, model: Any) -> Any:
        told = self.config.diff_pruning
        self.model = model.requires_grad_(False)
        found = [
            (name, layer)
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and matches(name, told.targets)
        ]
        if not found:
            raise RunFailedError(
                "The model has no linear layers of the usual kind, so there is nothing that diff pruning could change.",
                what_next="Choose another train.adapter.kind.",
            )
        for number, (name, layer) in enumerate(found):
            parent, _, last = name.rpartition(".")
            made = DiffLinear(layer, told.opening, told.groups, self._moment, number)
            setattr(model.get_submodule(parent), last, made)
        if self.training.reward:
            train_head(model)
        return model

    @property
    def layers(self) -> dict[str, DiffLinear]:
        """The layers that may differ, by name."""
        return {name: layer for name, layer in self.model.named_modules() if isinstance(layer, DiffLinear)}

    @property
    def kept(self) -> int:
        """How many numbers may differ in the end."""
        sizes: list[int] = [getattr(one, f"diff_{kind}").numel() for one in self.layers.values() for kind in one.kinds]
        return max(1, round(self.config.diff_pruning.density * sum(sizes)))

    @property
    def _first_fixed(self) -> int:
        """The number of updates after which the gates are fixed."""
        return max(1, round((1 - self.config.diff_pruning.fixed) * self.training.steps))

    def begin(self, steps: int, step: int = 0) -> None:
        super().begin(steps, step)
        self._moment.step, self._moment.fixed = step, step >= self._first_fixed

    def penalty(self) -> torch.Tensor | None:
        layers = self.layers.values()
        if self._moment.fixed or not self._moment.drawn:  # DeepSpeed expects a gradient of every weight all the same
            gates = [gate.sum() for layer in layers for kind in layer.kinds for gate in layer.log_alphas(kind)]
            return 0.0 * torch.stack(gates).sum()
        return self.config.diff_pruning.penalty * torch.stack([layer.expected_open() for layer in layers]).sum()

    def after_update(self) -> None:
        super().after_update()
        self._moment.step = self.step
        if self.step == self._first_fixed:
            self.fix()

    def fix(self) -> None:
        """Keep the largest numbers of the difference, and close all other gates for good."""
        parts = [(layer, kind) for layer in self.layers.values() for kind in layer.kinds]
        with torch.no_grad():
            sizes = [layer.at_evaluation(kind).abs() for layer, kind in parts]
            flat = torch.cat([size.flatten() for size in sizes])
            stays = torch.zeros_like(flat, dtype=torch.bool)
            stays[flat.topk(self.kept).indices] = True
            for (layer, kind), mask in zip(parts, stays.split([size.numel() for size in sizes]), strict=True):
                fixed = getattr(layer, f"{FIXED}{kind}")
                gates = layer._gates(kind, False) if self._moment.drawn else 1.0
                fixed.copy_(gates * mask.view_as(fixed))
        self._moment.fixed = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self._moment.enabled = False
        try:
            yield
        finally:
            self._moment.enabled = True

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the numbers that differ, with their places."""
        found: Tensors = {}
        for name, layer in self.layers.items():
            for kind in layer.kinds:
                difference = layer.at_evaluation(kind).cpu()
                if self._moment.fixed:
                    (places,) = getattr(layer, f"{FIXED}{kind}").cpu().flatten().nonzero(as_tuple=True)
                    found |= {f"{name}.{kind}{INDICES}": places, f"{name}.{kind}{VALUES}": difference.flatten()[places]}
                else:  # an iteration of an online flow, before any gate is fixed
                    found[f"{name}.{kind}{VALUES}"] = difference
        write_own(folder, self.config, found | head_of(weights))


def merge(model: Any, folder: Path) -> Any:
    """The model with the difference in `folder` added."""
    _, tensors = read_own(folder)
    with torch.no_grad():
        for name, values in tensors.items():
            if name.endswith(VALUES):
                weight, places = model.get_parameter(name.removesuffix(VALUES)), tensors.get(places_of(name))
                if places is None:
                    weight.data = weight.data + values.to(weight)
                else:
                    flat = weight.data.flatten()
                    flat[places] += values.to(flat)
                    weight.data = flat.view_as(weight)
    set_weights(model, head_of(tensors))
    return model


def places_of(values: str) -> str:
    """The name of the places of some values."""
    return values.removesuffix(VALUES) + INDICES


def merged(
    layer: DiffLinear, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A layer's weight and bias with the difference, as at evaluation."""
    return weight + layer.at_evaluation("weight"), None if bias is None else bias + layer.at_evaluation("bias")
