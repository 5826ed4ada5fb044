"""What a model needs: its number of parameters, and memory per device for generating and training. Loads no torch.

Figures are lower bounds for planning: activations and fragmentation come on top.
"""

import json
import re
import struct
from math import prod
from pathlib import Path

from models.config import EngineConfig, LaunchConfig, SamplingConfig, TrainConfig

BYTES = {"float32": 4, "bfloat16": 2}


class WeightsError(ValueError):
    """A weights file cannot be read."""


def parameters_of(model: Path | str) -> int | None:
    """Number of parameters: from the headers of its safetensors files, else from a name such as `Qwen2.5-7B`.

    Raises:
        WeightsError: a file is no safetensors file.
    """
    folder = Path(model)
    if any(folder.glob("*.safetensors")):
        return sum(_parameters_in(file) for file in folder.glob("*.safetensors"))
    found = re.findall(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", folder.name.lower())
    if not found:
        return None
    number, unit = found[-1]
    return int(float(number) * {"b": 1e9, "m": 1e6}[unit])


def _parameters_in(file: Path) -> int:
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length < file.stat().st_size:
            raise WeightsError(f"{file} is not a safetensors file. Was it fetched whole (git lfs pull)?")
        header = json.loads(stream.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def generation_bytes_per_device(parameters: int | None, sampling: SamplingConfig, engine: EngineConfig) -> int | None:
    """Weights of the policy per device, to which vLLM adds its KV cache; None if the size is unknown."""
    return None if parameters is None else parameters * BYTES[sampling.dtype] // engine.tensor_parallel_size


def training_bytes_per_device(parameters: int | None, train: TrainConfig, launch: LaunchConfig) -> int | None:
    """Weights, gradients and optimiser state per device under ZeRO (arXiv 1910.02054, figure 1).

    Mixed precision: 2 bytes a parameter for weights and 2 for gradients; the optimiser keeps 4 for master weights
    and 4 per moment (AdamW two, RMSprop one). Stage 1 spreads the optimiser's state over devices, stage 2 the
    gradients as well, stage 3 the weights as well.
    """
    if parameters is None:
        return None
    weights = gradients = BYTES[train.dtype]
    optimizer = 4 * {"adamw": 2, "rmsprop": 1}[train.optimizer] + (4 if train.dtype == "bfloat16" else 0)
    devices, stage = launch.processes, launch.zero_stage
    share = [1 if stage < needed else devices for needed in (3, 2, 1)]
    return int(parameters * sum(part / n for part, n in zip((weights, gradients, optimizer), share, strict=True)))
