"""Adapters of a run and of a user: whether they fit the model, and merging one into the policy it was trained on."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from data.errors import AutodidactError
from data.files import file_sha256, write_json
from models.adapters.settings import NOT_ADAPTED, AdapterConfig
from models.config import Dtype, MergeProgram, ModelCode, TrainConfig
from models.config_base import Config
from models.estimate import WeightsError, tensor_shapes
from tasks.stage.contract import MERGE, digest_of
from tasks.stage.logs import run_logger
from tasks.stage.run import Run

BASE = "base.json"  # beside an adapter's weights
MERGEABLE = ("LORA", "ADALORA", "IA3", "bitfit", "diff-pruning")
WEIGHT, BIAS = ".weight", ".bias"
# Tensors of adapters: the module that each belongs to, and what it is.
_PEFT = re.compile(r"base_model\.model\.(.+)\.(lora_A|lora_B|ia3_l)(?:\.weight)?")
_OWN = re.compile(r"(.+)\.(weight|bias)(?:\.indices)?")
Shapes = Mapping[str, list[int]]


class AdapterError(AutodidactError):
    """The adapter does not fit the model or the machine; the message says why and what to do."""


def check_targets(adapter: AdapterConfig, shapes: Shapes, model: str, setting: str) -> None:
    """Check that a new adapter can be attached to a model.

    Args:
        shapes: of the model's tensors.
        setting: the one that has the adapter.

    Raises:
        AdapterError: a target names no module that the kind can adapt, or a rank is above a module's size.
    """
    named, targets = adapter.wanted
    biases = adapter.kind == "bitfit"
    end = BIAS if biases else WEIGHT
    modules = {name.removesuffix(end): shape for name, shape in shapes.items() if name.endswith(end)}
    modules = {name: shape for name, shape in modules.items() if biases or len(shape) == 2}
    names = sorted({module.rsplit(".", 1)[-1] for module in modules} - NOT_ADAPTED)
    if not names:
        raise AdapterError(
            f"{setting}.adapter.kind is {adapter.kind}, but {model} has no {'biases' if biases else 'linear modules'}.",
            what_next="Use lora, adalora, ia3 or diff-pruning." if biases else "Train all weights: adapter none.",
        )
    for target in targets:
        found = [shape for name, shape in modules.items() if f".{name}".endswith(f".{target}")]
        if target.rsplit(".", 1)[-1] not in names or not found:
            raise AdapterError(
                f"{setting}.adapter.{named}: {target!r} matches no module of {model} that an adapter can be attached "
                "to.",
                what_next=f"Choose from {', '.join(names)}.",
            )
        rank, least = adapter.highest_rank, min(map(min, found))
        if rank is not None and rank > least:
            raise AdapterError(
                f"{setting}.adapter: the rank is {rank}, but a matrix of {target} in {model} has only {least} rows or "
                "columns.",
                what_next=f"Use a rank of at most {least}.",
            )


def check_adapter(folder: Path, model: Path) -> None:
    """Check that a trained adapter belongs to the model.

    Raises:
        AdapterError: it cannot be merged, or was trained on another base.
    """
    settings, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not settings.is_file() or not weights.is_file():
        raise AdapterError(
            f"{folder} is not an adapter: it needs adapter_config.json and adapter_model.safetensors, as written by "
            "peft's save_pretrained.",
            what_next="To use a complete model, give it with --model alone.",
        )
    try:
        told = json.loads(settings.read_text())
        kind = told.get("peft_type") or told.get("kind", "LORA")
        base, ours, theirs = read_base(folder), tensor_shapes(folder), tensor_shapes(model)
    except (WeightsError, ValueError, AttributeError) as error:
        raise AdapterError(
            f"The adapter {folder} cannot be read: {error}.", what_next="Save or download it again."
        ) from None
    if kind not in MERGEABLE:
        raise AdapterError(
            f"{folder} is a {kind} adapter; only {', '.join(MERGEABLE)} can be merged into a model.",
            what_next="Merge it with the library that trained it, and give the result as --model.",
        )
    if base and base.weights != (digest := weights_digest(model)):
        raise _other_base(
            folder, model, f"the weights that it was trained on have another digest ({base.weights}, not {digest})"
        )
    for tensor, needed in _adapted(ours):
        has = theirs.get(tensor)
        if has is None or any(size not in (None, there) for size, there in zip(needed, has, strict=False)):
            module, size = tensor.removesuffix(WEIGHT), " × ".join(str(n) if n else "any" for n in needed)
            there = "has no such module" if has is None else f"has {' × '.join(map(str, has))} there"
            raise _other_base(folder, model, f"its update of {module} is {size}, and the model {there}")


def _adapted(ours: Shapes) -> Iterator[tuple[str, list[int | None]]]:
    """The model's tensors that an adapter changes, and their sizes as far as it tells them."""
    updates: dict[str, list[int | None]] = {}
    for name, shape in ours.items():
        if found := _PEFT.fullmatch(name):
            size = updates.setdefault(found[1] + WEIGHT, [None, None])
            of_input = found[2] == "lora_A" or (found[2] == "ia3_l" and shape[0] == 1)
            size[1 if of_input else 0] = shape[1] if of_input else shape[0]
        elif own := _OWN.fullmatch(name):
            updates[f"{own[1]}.{own[2]}"] = [] if name.endswith(".indices") else [*shape]
    yield from updates.items()


def _other_base(folder: Path, model: Path, why: str) -> AdapterError:
    return AdapterError(
        f"The adapter {folder} was trained on another base than {model}: {why}. Give the model that it was trained "
        f"on, or only the merged policy."
    )


class Base(Config):
    """What an adapter was trained on: the digest of the weights, their dtype and quantization."""

    weights: str
    dtype: Dtype
    quantize: bool


def record_base(adapter: Path, policy: Path, train: TrainConfig) -> None:
    """Record beside an adapter what it was trained on."""
    base = Base(weights=weights_digest(policy), dtype=train.dtype, quantize=train.quantize)
    write_json(adapter / BASE, base.model_dump())


def read_base(adapter: Path) -> Base | None:
    """Read what an adapter was trained on; None if it was made elsewhere."""
    file = adapter / BASE
    return Base.model_validate_json(file.read_text()) if file.is_file() else None


def weights_digest(model: Path) -> str:
    return digest_of({file.name: file_sha256(file) for file in model.glob("*.safetensors")})


def merge(
    policy: Path, adapter: Path, output: Path, lock: Path, reward: bool = False, code: ModelCode = "refuse"
) -> list[str]:
    """Merge an adapter into the policy that it was trained on, in a separate program; return the command.

    Args:
        reward: the adapter belongs to a reward model.
        code: whether Python code in the policy's folder may run.

    Raises:
        ChildError: the program failed.
    """
    base = read_base(adapter)
    held = {"dtype": base.dtype, "quantize": base.quantize} if base else {}
    told = {"policy": policy, "adapter": adapter, "output": output, "reward": reward, "model_code": code, **held}
    program = MergeProgram.model_validate(told)
    file = output.with_name(MERGE)
    file.write_text(program.model_dump_json(indent=2))
    command = [sys.executable, "-m", "models.training.merge", str(file)]
    Run.start(command, output.with_name("log.txt"), lock, run_logger())
    return command
