"""A user's LoRA adapter: whether it fits the model, and merging it into the base policy."""

import json
import sys
from pathlib import Path

from data.errors import AutodidactError
from data.files import file_sha256, write_json
from models.config import AdapterConfig, Config, Dtype, MergeProgram, ModelCode, TrainConfig
from models.estimate import WeightsError, tensor_shapes
from tasks.stage.contract import MERGE, digest_of
from tasks.stage.logs import run_logger
from tasks.stage.run import Run

BASE = "base.json"  # beside an adapter's weights
# Embeddings and the output layer: trainers compute log-probabilities from the output layer's base weights.
UNSUPPORTED = frozenset({"lm_head", "embed_tokens", "wte", "wpe", "embed_in", "embed_out"})
_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


class AdapterError(AutodidactError):
    """The adapter does not fit the model or the machine; the message says why and what to do."""


def check_targets(adapter: AdapterConfig, modules: set[str], model: str, setting: str) -> None:
    """Check that every target of a new adapter names a linear module.

    Args:
        setting: the one that has the adapter.

    Raises:
        AdapterError: naming the target and the available modules.
    """
    names = sorted({module.rsplit(".", 1)[-1] for module in modules} - UNSUPPORTED)
    for target in adapter.targets:
        if target.rsplit(".", 1)[-1] not in names or not any(f".{m}".endswith(f".{target}") for m in modules):
            raise AdapterError(
                f"{setting}.adapter.targets: {target!r} matches no module of {model} that an adapter can be attached "
                "to.",
                what_next=f"Choose from {', '.join(names)}.",
            )


def check_adapter(folder: Path, model: Path) -> None:
    """Check that a trained adapter belongs to the model.

    Raises:
        AdapterError: it is not a LoRA adapter, or was trained on another base.
    """
    settings, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if not settings.is_file() or not weights.is_file():
        raise AdapterError(
            f"{folder} is not an adapter: it needs adapter_config.json and adapter_model.safetensors, as written by "
            "peft's save_pretrained.",
            what_next="To use a complete model, give it with --model alone.",
        )
    try:
        kind = json.loads(settings.read_text()).get("peft_type", "LORA")
        base, ours, theirs = read_base(folder), tensor_shapes(folder), tensor_shapes(model)
    except (WeightsError, ValueError, AttributeError) as error:
        raise AdapterError(
            f"The adapter {folder} cannot be read: {error}.", what_next="Save or download it again."
        ) from None
    if kind != "LORA":
        raise AdapterError(
            f"{folder} is a {kind} adapter; only LoRA can be merged into a model.",
            what_next="Merge it with the library that trained it, and give the result as --model.",
        )
    if base and base.weights != weights_digest(model):
        raise _other_base(folder, model, "the weights that it was trained on have another digest")
    for name, (_, width) in ((n, s) for n, s in ours.items() if n.endswith(_DOWN)):
        module = name.removeprefix(_PREFIX).removesuffix(_DOWN)
        height = ours.get(name.removesuffix(_DOWN) + _UP, [0])[0]
        found = theirs.get(f"{module}.weight")
        if found is None or sorted(found) != sorted([height, width]):
            has = "has no such module" if found is None else f"has {found[0]} × {found[-1]} there"
            raise _other_base(folder, model, f"its update of {module} is {height} × {width}, and the model {has}")


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
