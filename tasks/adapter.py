"""A user's LoRA adapter: whether it fits the model, and merging it into the base policy."""

import json
import sys
from pathlib import Path

from models.config import AdapterConfig, MergeProgram
from models.estimate import WeightsError, tensor_shapes
from tasks.contract import MERGE
from tasks.files import write_json
from tasks.logs import run_logger
from tasks.process import run_child

BASE = "base.json"  # beside an adapter's weights: the digest of the policy that it was trained on
# Embeddings and the output layer: the trainers compute log-probabilities from the output layer's own weights.
UNSUPPORTED = frozenset({"lm_head", "embed_tokens", "wte", "wpe", "embed_in", "embed_out"})
_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"


class AdapterError(ValueError):
    """The adapter does not fit the model or the machine; the message says why and what to do."""


def check_targets(adapter: AdapterConfig, modules: set[str], model: str) -> None:
    """See that every target of a new adapter is the name of a linear module.

    Raises:
        AdapterError: naming the target and what there is.
    """
    names = sorted({module.rsplit(".", 1)[-1] for module in modules} - UNSUPPORTED)
    for target in adapter.targets:
        if target.rsplit(".", 1)[-1] not in names or not any(f".{m}".endswith(f".{target}") for m in modules):
            raise AdapterError(
                f"train.adapter.targets: {target!r} matches no module of {model} that an adapter can be attached to. "
                f"It has {', '.join(names)}."
            )


def check_adapter(folder: Path, model: Path, model_digest: str) -> None:
    """See that a trained adapter belongs to the model.

    Raises:
        AdapterError: it is no adapter, or was trained on another base.
    """
    settings = folder / "adapter_config.json"
    if not settings.is_file() or not any(folder.glob("adapter_model.safetensors")):
        raise AdapterError(
            f"{folder} is no adapter: it needs adapter_config.json and adapter_model.safetensors, as peft's "
            f"save_pretrained writes them. A whole model is given with --model alone."
        )
    made_on = json.loads((folder / BASE).read_text())["policy"] if (folder / BASE).is_file() else model_digest
    if made_on != model_digest:
        raise _other_base(
            folder, model, f"it was trained on policy {made_on[:12]}, and this one is {model_digest[:12]}"
        )
    try:
        ours, theirs = tensor_shapes(folder), tensor_shapes(model)
    except WeightsError as error:
        raise AdapterError(str(error)) from None
    for name, (_, width) in ((n, s) for n, s in ours.items() if n.endswith(_DOWN)):
        module = name.removeprefix(_PREFIX).removesuffix(_DOWN)
        height = ours[name.removesuffix(_DOWN) + _UP][0]
        found = theirs.get(f"{module}.weight")
        if found != [height, width]:
            has = "has no such module" if found is None else f"has {found[0]} × {found[1]} there"
            raise _other_base(folder, model, f"its update of {module} is {height} × {width}, and the model {has}")


def _other_base(folder: Path, model: Path, why: str) -> AdapterError:
    return AdapterError(
        f"The adapter {folder} was trained on another base than {model}: {why}. Give the model that it was trained "
        f"on, or the merged policy alone."
    )


def record_base(adapter: Path, digest: str) -> None:
    """Note beside an adapter which policy it was trained on."""
    write_json(adapter / BASE, {"policy": digest})


def merge(program: MergeProgram, attempt: Path, lock: Path) -> list[str]:
    """Merge an adapter into a policy, in a program of its own; return the command.

    Raises:
        ChildError: the program failed.
    """
    file = attempt / MERGE
    file.write_text(program.model_dump_json(indent=2))
    command = [sys.executable, "-m", "models.merge", str(file)]
    run_child(command, attempt / "log.txt", lock, run_logger())
    return command
