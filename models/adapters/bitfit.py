"""BitFit (arXiv 2106.10199): the biases are trained, and nothing else. The result is a plain checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from models.adapters.adapter import Adapter, Tensors, head_of, matches, read_own, set_weights, train_head, write_own

BIAS = ".bias"


class BitFit(Adapter):
    """The biases of a model as an adapter."""

    def __init__(self, *told: Any) -> None:
        super().__init__(*told)
        self._base: Tensors = {}

    def attach(self, model: Any) -> Any:
        self.model = model.requires_grad_(False)
        for name, weight in model.named_parameters():
            if name.endswith(BIAS) and matches(name.removesuffix(BIAS), self.config.bitfit.targets):
                weight.requires_grad_(True)
                self._base[name] = weight.detach().clone()
        if self.training.reward:
            train_head(model)
        return model

    @contextmanager
    def disabled(self) -> Iterator[None]:
        biases = dict(self.model.named_parameters())
        trained = {name: biases[name].data for name in self._base}
        try:
            for name, base in self._base.items():
                biases[name].data = base.to(trained[name])
            yield
        finally:
            for name, value in trained.items():
                biases[name].data = value

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        write_own(folder, self.config, {name: weights[name] for name in self._base} | head_of(weights))


def merge(model: Any, folder: Path) -> Any:
    """The model with the biases in `folder`."""
    set_weights(model, read_own(folder)[1])
    return model
