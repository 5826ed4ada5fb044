"""Virtual tokens: learned vectors in front of every sequence, which no caller sees. Prompt, P- and prefix tuning.

Hooks put them in front of what a model's trunk gets, and take them out of what it returns: shapes, losses and heads
stay as they are. With a cache they are there already. An attention mask and positions are shifted accordingly, so that
the numbers are peft's: an adapter is written as peft writes it, and peft can load it.
"""

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from models.adapters.adapter import CONFIG, Adapter, Tensors, head_of, set_weights, train_head
from models.adapters.settings import NUMBERS, WEIGHTS

PLACE = "virtual_tokens"  # the module's name in a model
ENCODER = "encoder.safetensors"


class Fixed(nn.Module):  # type: ignore[misc]
    """Numbers that are not trained."""

    def __init__(self, numbers: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers, persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.numbers[tokens]


class InFront:
    """Hooks on a model's trunk that put virtual tokens in front.

    Args:
        encoder: from numbers of tokens, shape (1, count), to vectors, shape (1, count, size).
    """

    def __init__(self, encoder: nn.Module, count: int) -> None:
        self.encoder, self.count, self.enabled = encoder, count, True
        self._added = False

    def attach(self, model: Any) -> None:
        """Hook into the trunk of a model."""
        trunk = getattr(model, model.base_model_prefix)
        trunk.register_forward_pre_hook(self._before, with_kwargs=True)
        trunk.register_forward_hook(self._after)

    def vectors(self, device: torch.device) -> torch.Tensor:
        """The virtual tokens, shape (count, size)."""
        return self.encoder(torch.arange(self.count, device=device)[None])[0]

    def _before(self, trunk: Any, positional: tuple[Any, ...], told: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        self._added = False
        if not self.enabled:
            return positional, told
        told = dict(zip(("input_ids",), positional, strict=False)) | told
        past = told.get("past_key_values")
        first = past is None or past.get_seq_length() == 0
        given = told["inputs_embeds"] if told.get("inputs_embeds") is not None else told["input_ids"]
        rows, mask, positions = given.shape[0], told.get("attention_mask"), told.get("position_ids")
        if mask is not None:
            told["attention_mask"] = torch.cat([mask.new_ones(rows, self.count), mask], dim=1)
        told.pop("cache_position", None)
        if first:
            told = self.put(trunk, told, rows)
            self._added = self.in_the_sequence
        if positions is not None:
            own = torch.arange(self.count, device=positions.device).expand(len(positions), -1)
            positions = positions + self.count
            told["position_ids"] = torch.cat([own, positions], dim=1) if self._added else positions
        elif mask is not None:
            whole = (told["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
            told["position_ids"] = whole if self._added else whole[:, -given.shape[1] :]
        return (), told

    def _after(self, trunk: Any, positional: tuple[Any, ...], output: Any) -> Any:
        if self._added:
            output.last_hidden_state = output.last_hidden_state[:, self.count :]
        return output

    in_the_sequence = True
    """Whether virtual tokens are part of what goes through the layers."""

    def put(self, trunk: Any, told: dict[str, Any], rows: int) -> dict[str, Any]:
        """Put the vectors in front of the embedded tokens."""
        embeds, ids = told.get("inputs_embeds"), told.get("input_ids")
        embeds = trunk.get_input_embeddings()(ids) if embeds is None else embeds
        vectors = self.vectors(embeds.device).to(embeds.dtype).expand(rows, -1, -1)
        return told | {"input_ids": None, "inputs_embeds": torch.cat([vectors, embeds], dim=1)}


class KeysInFront(InFront):
    """Hooks that put keys and values of virtual tokens in front of every layer's (prefix tuning)."""

    in_the_sequence = False

    def put(self, trunk: Any, told: dict[str, Any], rows: int) -> dict[str, Any]:
        from transformers import DynamicCache

        config = trunk.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dtype, device = trunk.get_input_embeddings().weight.dtype, trunk.get_input_embeddings().weight.device
        # As in peft: for each layer keys, then values.
        whole = self.vectors(device).to(dtype).view(self.count, 2 * config.num_hidden_layers, heads, -1)
        whole = whole.permute(1, 2, 0, 3)[:, None].expand(-1, rows, -1, -1, -1)
        cache = told.get("past_key_values")
        cache = DynamicCache() if cache is None else cache
        for layer in range(config.num_hidden_layers):
            cache.update(whole[2 * layer], whole[2 * layer + 1], layer)
        return told | {"past_key_values": cache}


class VirtualTokens(Adapter):
    """An adapter of virtual tokens. A subclass says where their numbers come from."""

    hooks: type[InFront] = InFront

    @abstractmethod
    def encoder(self, model: Any) -> nn.Module:
        """A new encoder of the virtual tokens, to train."""

    @abstractmethod
    def as_peft(self, model: Any) -> Any:
        """peft's configuration of the adapter."""

    def attach(self, model: Any) -> Any:
        self.model = model.requires_grad_(False)
        dtype, device = model.get_input_embeddings().weight.dtype, model.device
        encoder = self.encoder(model).to(device, dtype if dtype.is_floating_point else torch.float32)
        self.in_front = put_in_front(model, encoder, self.config.tokens, self.hooks)
        if self.training.reward:
            train_head(model)
        return model

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self.in_front.enabled = False
        try:
            yield
        finally:
            self.in_front.enabled = True

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        written = self.beside() | head_of(weights)
        save_file({name: one.detach().cpu().contiguous() for name, one in written.items()}, folder / WEIGHTS)
        own = getattr(self.model, PLACE).state_dict()
        save_file({name: one.detach().cpu().contiguous() for name, one in own.items()}, folder / ENCODER)
        told = self.as_peft(self.model).to_dict() | {"inference_mode": True, "base_model_name_or_path": None}
        told |= {"settings": self.config.model_dump(mode="json")}
        (folder / CONFIG).write_text(json.dumps(told, indent=2, sort_keys=True, default=str) + "\n")

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def beside(self) -> Tensors:
        return {NUMBERS: self.in_front.vectors(self.model.device)}

    def go_on(self, folder: Path) -> None:
        getattr(self.model, PLACE).load_state_dict(load_file(folder / ENCODER))


def put_in_front(model: Any, encoder: nn.Module, count: int, hooks: type[InFront]) -> InFront:
    """Make a model compute with virtual tokens in front of every sequence."""
    model.add_module(PLACE, encoder)
    in_front = hooks(encoder, count)
    in_front.attach(model)
    return in_front


def put(model: Any, numbers: torch.Tensor, hooks: type[InFront]) -> None:
    """Put virtual tokens with these numbers in front, in place of those that are there."""
    numbers = numbers.to(model.device)
    if hasattr(model, PLACE):
        getattr(model, PLACE).numbers = numbers
    else:
        put_in_front(model, Fixed(numbers), len(numbers), hooks)


def load(model: Any, folder: Path, hooks: type[InFront]) -> Any:
    """The model with the trained virtual tokens in `folder`."""
    tensors = load_file(folder / WEIGHTS)
    put(model, tensors[NUMBERS], hooks)
    set_weights(model, head_of(tensors))
    return model


def sizes(model: Any, tokens: int) -> dict[str, Any]:
    """What all of peft's configurations of virtual tokens say."""
    config = model.config.get_text_config()
    return {
        "task_type": "CAUSAL_LM",
        "num_virtual_tokens": tokens,
        "token_dim": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_transformer_submodules": 1,
    }
