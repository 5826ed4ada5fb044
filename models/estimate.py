"""What a model needs: its number of parameters, and memory per device for generating and training. Loads no torch.

Figures are for planning: fragmentation and what libraries take come on top.
"""

import re
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open

from data.errors import AutodidactError
from models.config import Dtype, EngineConfig, LaunchConfig, TrainConfig

BYTES = {"float32": 4, "bfloat16": 2}
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
NF4_BYTES = 0.52  # 4 bits, and 0.127 bits of doubly quantised scales (arXiv 2305.14314, section 3)


class WeightsError(AutodidactError):
    """A weights file cannot be read."""


def parameters_of(model: Path | str) -> int | None:
    """Number of parameters: from the headers of its safetensors files, else from a name such as `Qwen2.5-7B`.

    Raises:
        WeightsError: a file is no safetensors file.
    """
    folder = Path(model)
    if any(folder.glob("*.safetensors")):
        return sum(prod(shape) for shape in tensor_shapes(folder).values())
    found = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", folder.name.lower())
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * {"b": 1e9, "m": 1e6}[unit])


def linear_modules(model: Path) -> set[str]:
    """Names of the modules of a model folder that hold a matrix, from the headers of its safetensors files."""
    found = tensor_shapes(model).items()
    return {name.removesuffix(".weight") for name, shape in found if name.endswith(".weight") and len(shape) == 2}


def embedding_rows(model: Path) -> int | None:
    """For how many tokens a model folder has input embeddings; None if it has none by a name that is known."""
    shapes = tensor_shapes(model).items()
    rows = (shape[0] for name, shape in shapes if name.removesuffix(".weight").rsplit(".", 1)[-1] in EMBEDDINGS)
    return next(rows, None)


def tensor_shapes(model: Path) -> dict[str, list[int]]:
    """Shape of every tensor in the safetensors files of a folder, from their headers.

    Raises:
        WeightsError: a file is no safetensors file, or not a whole one.
    """
    return {name: shape for file in sorted(model.glob("*.safetensors")) for name, shape in _shapes(file).items()}


def _shapes(file: Path) -> dict[str, list[int]]:
    try:
        with safe_open(file, framework="np") as opened:  # "np" loads no torch
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{file} is not a safetensors file, or not a whole one ({error}).",
            what_next="Was it fetched whole (git lfs pull)?",
        ) from error


def generation_bytes_per_device(parameters: int | None, dtype: Dtype, engine: EngineConfig) -> int | None:
    """Weights of a model that answers per device, to which vLLM adds its KV cache; None if the size is unknown."""
    return None if parameters is None else parameters * BYTES[dtype] // engine.tensor_parallel_size


def weights_bytes_per_device(parameters: int | None, train: TrainConfig, launch: LaunchConfig) -> int | None:
    """Weights of the policy per device in a forward pass, as training holds them; ZeRO 3 spreads them over devices."""
    if parameters is None:
        return None
    devices = launch.processes if launch.zero_stage == 3 else 1
    return int(parameters * (NF4_BYTES if train.quantize else BYTES[train.dtype]) / devices)


def training_disk_bytes(parameters: int | None, train: TrainConfig) -> int:
    """The new policy, and two checkpoints with the optimiser's state while training: of an adapter they are small."""
    return (parameters or 0) * (BYTES[train.dtype] if train.adapter else 40)


def checkpoint_disk_bytes(parameters: int | None, train: TrainConfig) -> int:
    """The new policy, which is what stays of that."""
    return (parameters or 0) * BYTES[train.dtype]


def activation_bytes(parameters: int | None, tokens: int, dtype: Dtype, launch: LaunchConfig) -> int | None:
    """Activations of one forward pass over `tokens` tokens on one device.

    In 16 bits 34 bytes per token, layer and hidden unit (arXiv 2205.05198, equation 2, without the attention matrix,
    which is never held), in 32 bits twice as many; with gradient checkpointing the inputs of all layers and the inside
    of one. Width and depth are those of a transformer of that size: 12 · layers · hidden² parameters, hidden = 128 ·
    layers. `python -m benchmarks memory` compares it with what a GPU holds.
    """
    if parameters is None:
        return None
    hidden = (128 * parameters / 12) ** (1 / 3)
    layers = hidden / 128
    of_a_unit = BYTES[dtype] * (layers + 17 if launch.gradient_checkpointing else 17 * layers)
    return int(hidden * tokens * of_a_unit)


def training_bytes_per_device(parameters: int | None, train: TrainConfig, launch: LaunchConfig) -> int | None:
    """Weights, gradients and optimiser state per device as DeepSpeed holds them (`python -m benchmarks memory`).

    That is more than the 2 + 2 + 12 bytes a parameter of mixed precision in arXiv 1910.02054, figure 1: with ZeRO or
    in bfloat16 there are gradients in 32 bits beside master weights and moments (AdamW two, RMSprop one). While it
    updates, RMSprop takes 4 bytes more, and AdamW with ZeRO in bfloat16 2: the gradients, before they are widened.
    Stage 1 spreads all of these over devices, stage 2 the gradients as well, stage 3 the weights as well.
    """
    if parameters is None:
        return None
    if train.adapter:  # the gradients and moments of an adapter are negligible beside the frozen weights
        return weights_bytes_per_device(parameters, train, launch)
    devices, stage, mixed = launch.processes, launch.zero_stage, train.dtype == "bfloat16"
    weights = gradients = BYTES[train.dtype]
    moments, update = {"adamw": (8, 2 if stage and mixed else 0), "rmsprop": (4, 4)}[train.optimizer]
    master = wide_gradients = 4 if stage or mixed else 0
    optimizer = moments + update + master + wide_gradients
    share = [1 if stage < needed else devices for needed in (3, 2, 1)]
    return int(parameters * sum(part / n for part, n in zip((weights, gradients, optimizer), share, strict=True)))
