"""What every kind of parameter-efficient fine-tuning is to the training programs."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from models.adapters.settings import NOT_ADAPTED, WEIGHTS, AdapterConfig

CONFIG = "adapter_config.json"
HEAD = "score"  # Transformers' name of a sequence classifier's head
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Training:
    """What an adapter has to know of the training that it takes part in.

    Attributes:
        learning_rate: the peak.
        seed: of what the kind draws at random.
        reward: a reward model is trained, whose head is fully trained and saved with the adapter.
        drawn: what is random in the kind is drawn. Not where a policy learns from its own answers: its probabilities
            would not be those that the answers were sampled with.
        steps: optimizer steps in all; known once training begins.
    """

    learning_rate: float
    seed: int
    reward: bool = False
    drawn: bool = True
    steps: int = 0


class Adapter(ABC):
    """An adapter that is trained: on a model, with what its kind does beside the optimizer.

    Attributes:
        model: the model with the adapter, once it is attached.
        step: optimizer steps made so far.
    """

    watches = False
    """Whether the kind does something at every optimizer step, or adds to the loss."""
    undecayed: tuple[str, ...] = ()
    """Parts of the names of weights that weight decay would pull away from what they begin as."""
    rated: tuple[str, ...] = ()
    """Parts of the names of weights that have a learning rate of their own."""

    def __init__(self, config: AdapterConfig, training: Training) -> None:
        self.config, self.training = config, training
        self.model: Any = None
        self.optimizer: Any = None  # DeepSpeed's
        self.step = 0

    @property
    def rate(self) -> float:
        """The learning rate of the weights in `rated`, as a multiple of that of the others."""
        return 1.0

    def ready(self, model: Any) -> None:
        """Accept the model once the adapter is attached and everything on it has its number format."""
        self.model = model

    @property
    def peft_config(self) -> Any:
        """peft's configuration, if peft has the kind: TRL's trainers attach such an adapter themselves."""
        return None

    @abstractmethod
    def attach(self, model: Any) -> Any:
        """Freeze the model, attach a new adapter, and return what to train."""

    @abstractmethod
    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """Write the adapter.

        Args:
            weights: the model's whole weights by name, gathered from all devices.
        """

    def go_on(self, folder: Path) -> None:
        """Go on from an adapter of the same settings that an earlier training wrote to `folder`.

        Raises:
            NotImplementedError: the kind is merged after each training, so that there is nothing to go on from.
        """
        raise NotImplementedError(f"{self.config.kind} starts anew")

    def beside(self) -> Tensors:
        """What an engine needs besides the weights of the base; nothing of a kind that is merged into them."""
        return {}

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Make the model compute as the base does."""
        with self.model.disable_adapter():
            yield

    def begin(self, steps: int, step: int = 0) -> None:
        """Learn how many steps there are, and which was the last."""
        self.training, self.step = replace(self.training, steps=steps), step

    def penalty(self) -> torch.Tensor | None:
        """What the kind adds to the loss."""
        return None

    def before_update(self) -> None:  # noqa: B027  most kinds have nothing to do
        """Called when gradients are there and no weight has changed yet."""

    def after_update(self) -> None:
        """Called after each update."""
        self.step += 1

    def state(self) -> Tensors:
        """What the kind has to remember to go on after a stop, besides weights."""
        return {}

    def load_state(self, state: Tensors) -> None:  # noqa: B027
        """Go on from what `state` gave."""


def head_of(weights: Mapping[str, torch.Tensor]) -> Tensors:
    """The head of a reward model among its weights; empty for a policy."""
    return {name: weight for name, weight in weights.items() if name.split(".")[0] == HEAD}


def train_head(model: Any) -> None:
    """Make a reward model's head trainable."""
    for name, weight in model.named_parameters():
        if name.split(".")[0] == HEAD:
            weight.requires_grad_(True)


def set_weights(model: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Set weights of a model by their names."""
    for name, value in tensors.items():
        weight = model.get_parameter(name)
        weight.data = value.to(weight.device, weight.dtype)


def matches(module: str, targets: tuple[str, ...]) -> bool:
    """Whether a module's dotted name ends with one of the names; without names, whether it is in a layer at all."""
    if not targets:
        return module.rsplit(".", 1)[-1] not in NOT_ADAPTED
    return any(f".{module}".endswith(f".{target}") for target in targets)


def write_own(folder: Path, config: AdapterConfig, tensors: Tensors) -> None:
    """Write an adapter of a kind that peft lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True) + "\n")


def read_own(folder: Path) -> tuple[AdapterConfig, Tensors]:
    """Read what `write_own` wrote."""
    return AdapterConfig.model_validate_json((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
