"""A model's needs: its number of parameters, and memory per device for generation and training. Loads no torch.

The numbers are for planning: fragmentation and library overhead are not included.
"""

import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from data.errors import AutodidactError
from models.adapters.settings import UNMERGED
from models.config import Dtype, EngineConfig, LaunchConfig, TrainConfig

BYTES = {"float32": 4, "bfloat16": 2}
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
LIVE_PARAMETERS = 1_000_000_000  # DeepSpeed's default of stage3_max_live_parameters
WHOLE = ("bitfit", "diff-pruning", *UNMERGED)  # kinds of adapters whose checkpoints hold all weights
NF4_BYTES = 0.52  # 4 bits, and 0.127 bits of doubly quantized scales (arXiv 2305.14314, section 3)


class WeightsError(AutodidactError):
    """A weights file cannot be read."""


def parameters_of(model: Path | str) -> int | None:
    """Number of parameters, from the headers of its safetensors files, else from a name such as `Qwen2.5-7B`.

    Raises:
        WeightsError: a file is not a safetensors file.
    """
    folder = Path(model)
    if any(folder.glob("*.safetensors")):
        return sum(prod(shape) for shape in tensor_shapes(folder).values())
    found = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", folder.name.lower())
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * {"b": 1e9, "m": 1e6}[unit])


def embedding_rows(model: Path) -> int | None:
    """Number of tokens with an input embedding; None if no tensor has a known embedding name."""
    shapes = tensor_shapes(model).items()
    rows = (shape[0] for name, shape in shapes if name.removesuffix(".weight").rsplit(".", 1)[-1] in EMBEDDINGS)
    return next(rows, None)


def tensor_shapes(model: Path) -> dict[str, list[int]]:
    """Shape of every tensor in the safetensors files of a folder, from their headers.

    Raises:
        WeightsError: a file is not a complete safetensors file.
    """
    return {name: shape for file in sorted(model.glob("*.safetensors")) for name, shape in _shapes(file).items()}


def _shapes(file: Path) -> dict[str, list[int]]:
    try:
        with safe_open(file, framework="np") as opened:  # "np" loads no torch
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is not a complete safetensors file ({error}).",
            what_next="Fetch it again (git lfs pull, hf download).",
        ) from error


def generation_bytes_per_device(parameters: int | None, dtype: Dtype, engine: EngineConfig) -> int | None:
    """Bytes of weights per device during generation, to which vLLM adds its KV cache; None if the size is unknown."""
    return None if parameters is None else parameters * BYTES[dtype] // engine.tensor_parallel_size


def cache_bytes_per_token(config: Mapping[str, Any], dtype: Dtype, engine: EngineConfig) -> int | None:
    """Bytes of KV cache per token and device, from a model's config.json; None if it names no heads.

    Two vectors per layer and key-value head (arXiv 2309.06180, section 3), or with multi-head latent attention one
    compressed vector per layer (arXiv 2405.04434, section 2.1). vLLM spreads heads over devices, at least one on each.
    """
    told = config.get("text_config", config)
    try:
        layers, latent = int(told["num_hidden_layers"]), told.get("kv_lora_rank")
        if latent:
            return layers * (int(latent) + int(told["qk_rope_head_dim"])) * BYTES[dtype]
        heads = int(told["num_attention_heads"])
        width = int(told.get("head_dim") or int(told["hidden_size"]) // heads)
        shared = int(told.get("num_key_value_heads") or heads)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return 2 * layers * max(1, shared // engine.tensor_parallel_size) * width * BYTES[dtype]


def weights_bytes_per_device(parameters: int | None, train: TrainConfig, launch: LaunchConfig) -> int | None:
    """Bytes of weights per device in a forward pass, in the training format; ZeRO 3 spreads them over devices."""
    if parameters is None:
        return None
    devices = launch.processes if launch.zero_stage == 3 else 1
    return int(parameters * (NF4_BYTES if train.quantize else BYTES[train.dtype]) / devices)


def training_disk_bytes(parameters: int | None, train: TrainConfig) -> int:
    """Bytes of the new policy and of two checkpoints with optimizer state. Those of peft's adapters are small."""
    if train.adapter is None:
        return (parameters or 0) * 40
    # Each checkpoint of the other kinds holds the frozen weights twice, and with diff pruning three numbers more for
    # each, of which two are trained.
    whole = 4 * BYTES[train.dtype] if train.adapter.kind in WHOLE else 0
    trained = 2 * (2 * 3 * BYTES[train.dtype] + 2 * 12) if train.adapter.kind == "diff-pruning" else 0
    return (parameters or 0) * (BYTES[train.dtype] + whole + trained)


def checkpoint_disk_bytes(parameters: int | None, train: TrainConfig) -> int:
    """The new policy, which is what stays of that."""
    return (parameters or 0) * BYTES[train.dtype]


def activation_bytes(parameters: int | None, tokens: int, dtype: Dtype, launch: LaunchConfig) -> int | None:
    """Bytes of activations of one forward pass over `tokens` tokens on one device.

    In 16 bits, 34 bytes per token, layer and hidden unit (arXiv 2205.05198, equation 2, without the attention matrix,
    which is never materialized), in 32 bits twice that; with gradient checkpointing, the inputs of all layers and the
    activations inside one. Width and depth are those of a transformer of that size: 12 · layers · hidden² parameters,
    hidden = 128 · layers. `python -m benchmarks memory` compares this with actual GPU memory.
    """
    if parameters is None:
        return None
    hidden = (128 * parameters / 12) ** (1 / 3)
    layers = hidden / 128
    of_a_unit = BYTES[dtype] * (layers + 17 if launch.gradient_checkpointing else 17 * layers)
    return int(hidden * tokens * of_a_unit)


def training_bytes_per_device(parameters: int | None, train: TrainConfig, launch: LaunchConfig) -> int | None:
    """Bytes of weights, gradients and optimizer state per device in DeepSpeed (`python -m benchmarks memory`).

    This exceeds the 2 + 2 + 12 bytes per parameter of mixed precision in arXiv 1910.02054, figure 1: with ZeRO or in
    bfloat16 there are 32-bit gradients besides master weights and moments (AdamW two, RMSprop one). During the update,
    RMSprop takes 4 more bytes, and AdamW with ZeRO in bfloat16 takes 2: the gradients before they are widened. Stage 1
    spreads all of these over devices, stage 2 also the gradients, stage 3 also the weights. Offloading keeps the
    optimizer's part in the CPU's memory, or everything that no layer needs at the moment.
    """
    if parameters is None:
        return None
    if launch.offload == "all":  # what is gathered for the layers at hand
        return min(parameters, LIVE_PARAMETERS) * BYTES[train.dtype]
    if train.adapter:  # an adapter's gradients and moments are negligible next to the frozen weights
        frozen = weights_bytes_per_device(parameters, train, launch)
        if frozen is None or train.adapter.kind != "diff-pruning":
            return frozen
        alone = training_bytes_per_device(2 * parameters, train.model_copy(update={"adapter": None}), launch)
        # Two trained numbers for each weight, one that is fixed, and what is computed from them in a forward pass.
        return None if alone is None else frozen + alone + parameters * (BYTES[train.dtype] + 20)
    devices, stage, mixed = launch.processes, launch.zero_stage, train.dtype == "bfloat16"
    weights = gradients = BYTES[train.dtype]
    moments, update = {"adamw": (8, 2 if stage and mixed else 0), "rmsprop": (4, 4)}[train.optimizer]
    master = wide_gradients = 4 if stage or mixed else 0
    optimizer = 0 if launch.offload != "none" else moments + update + master + wide_gradients
    share = [1 if stage < needed else devices for needed in (3, 2, 1)]
    return int(parameters * sum(part / n for part, n in zip((weights, gradients, optimizer), share, strict=True)))
