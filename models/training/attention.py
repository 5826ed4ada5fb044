"""Which implementation of attention trains a model: by the device, the number format, and whether rows are packed."""

from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.utils import is_flash_attn_2_available

from models.config import Attention, Dtype

FLASH, PACKED = "flash_attention_2", "packed_sdpa"


def attention(choice: Attention, dtype: Dtype, config: Any, packed: bool = False) -> dict[str, str]:
    """Transformers' argument for a model with this configuration; empty: its default, SDPA where the model has it.

    `auto` is FlashAttention on a GPU, in 16 bits, where the package flash-attn is installed. Otherwise packed rows,
    whose examples must not see each other, are computed example by example: SDPA's mask would be as large as the square
    of a row. A model that cannot have either, or whose attention is not all causal and full, keeps its default.
    """
    if choice != "auto":
        return {"attn_implementation": choice}
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)  # None: the model brings its own code
    flash = torch.cuda.is_available() and dtype == "bfloat16" and is_flash_attn_2_available()
    if flash and getattr(model, "_supports_flash_attn", False):
        return {"attn_implementation": FLASH}
    replaceable = all(getattr(model, name, False) for name in ("_supports_attention_backend", "_supports_sdpa"))
    if packed and replaceable and _is_plain(config.get_text_config()):
        return {"attn_implementation": PACKED}
    return {}


def _is_plain(config: Any) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not windowed and not getattr(config, "attn_logit_softcapping", None)


def packed_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA of each packed example on its own, without a mask.

    Args:
        query, key, value: shape (batch, heads, length, width).
        attention_mask: not needed: padding is on the right, where no token before it looks.
        position_ids: positions, which begin at 0 in each example, shape (batch or 1, length).

    Returns:
        Shape (batch, length, heads, width).

    Raises:
        ValueError: the model does not tell its attention the positions.
    """
    if position_ids is None:
        raise ValueError(f"{type(module).__name__} does not tell positions. Set launch.attention to sdpa.")
    rows = _examples(position_ids)
    if all(len(lengths) == 1 for lengths in rows):
        return sdpa_attention_forward(module, query, key, value, None, **settings)[0], None
    done = []
    for row, lengths in enumerate(rows):
        examples = zip(*(part[row : row + 1].split(lengths, dim=2) for part in (query, key, value)), strict=True)
        done.append(torch.cat([sdpa_attention_forward(module, *one, None, **settings)[0] for one in examples], dim=1))
    return torch.cat(done), None


def _examples(position_ids: torch.Tensor) -> list[list[int]]:
    """The lengths of the examples in each row; padding, which has positions of 0, is one more."""
    known: list[list[int]] | None = getattr(position_ids, "examples", None)  # of the layers before this one
    if known is None:
        zero = position_ids == 0
        begins = zero.clone()
        begins[:, 1:] &= ~zero[:, :-1]
        begins[:, 0] = True
        length = position_ids.shape[1]
        starts = [torch.nonzero(row).flatten().tolist() for row in begins]
        known = [[after - start for start, after in zip(row, [*row[1:], length], strict=True)] for row in starts]
        position_ids.examples = known  # type: ignore[attr-defined]
    return known


AttentionInterface.register(PACKED, packed_sdpa)
