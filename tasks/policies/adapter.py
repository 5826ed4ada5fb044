"""Adapters of a run and of a user: whether they fit the model, and merging one into the policy it was trained on."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from data.errors import AutodidactError
from data.files import file_sha256, write_json
from models.adapters.settings import NOT_ADAPTED, AdapterConfig
from models.config import Dtype, MergeProgram, ModelCode, TrainConfig
from models.config_base import Config
from models.estimate import WeightsError, tensor_shapes
from models.loading import UNMERGED, unmerged
from tasks.policies.model_folder import model_files
from tasks.stage.contract import MERGE, digest_of
from tasks.stage.logs import run_logger
from tasks.stage.run import Run

BASE = "base.json"  # beside an adapter's weights
PEFT = ("LORA", "ADALORA", "IA3")
MERGEABLE = (*PEFT, "bitfit", "diff-pruning")
CLASSIFIER = "ForSequenceClassification"
WEIGHT, BIAS = ".weight", ".bias"
# Tensors of adapters: the module that each belongs to, and what it is.
_PEFT = re.compile(r"base_model\.model\.(.+)\.(lora_A|lora_B|ia3_l)(?:\.weight)?")
_OWN = re.compile(r"(.+)\.(weight|bias)(?:\.values)?")
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
    if adapter.tokens:
        return
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
            what_next="Merge it with the library that trained it, and give the result as --model. Of a run of kind "
            "prompt, p-tuning, prefix or bottleneck, give the policy's folder as --model.",
        )
    if base and base.weights != (digest := weights_digest(model)):
        raise _other_base(
            folder, model, f"the weights that it was trained on have another digest ({base.weights}, not {digest})"
        )
    for tensor, needed in _adapted(ours, kind in PEFT):
        has = theirs.get(tensor)
        if has is None or not _fits(needed, has):
            module, size = tensor.removesuffix(WEIGHT), " × ".join(str(n) if n else "any" for n in needed)
            there = "has no such module" if has is None else f"has {' × '.join(map(str, has))} there"
            raise _other_base(folder, model, f"its update of {module} is {size}, and the model {there}")


def _fits(needed: list[int | None], has: list[int]) -> bool:
    """Whether a matrix has the sizes that an update needs. GPT-2's matrices have inputs before outputs."""
    return any(
        all(size is None or size == there for size, there in zip(needed, sizes, strict=False))
        for sizes in (has, has[::-1])
    )


def _adapted(ours: Shapes, by_peft: bool) -> Iterator[tuple[str, list[int | None]]]:
    """The model's tensors that an adapter changes, and their sizes as far as it tells them."""
    updates: dict[str, list[int | None]] = {}
    for name, shape in ours.items():
        if by_peft and (found := _PEFT.fullmatch(name)):
            size = updates.setdefault(found[1] + WEIGHT, [None, None])
            of_input = found[2] == "lora_A" or (found[2] == "ia3_l" and shape[0] == 1)
            size[1 if of_input else 0] = shape[1] if of_input else shape[0]
        elif not by_peft and (own := _OWN.fullmatch(name)):
            updates[f"{own[1]}.{own[2]}"] = [] if f"{own[1]}.{own[2]}.indices" in ours else [*shape]
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


def finish(start: Path, attempt: Path, train: TrainConfig, lock: Path, reward: bool, code: ModelCode) -> None:
    """Make a policy of a trained adapter in an attempt, and of the weights that it was trained on.

    Args:
        start: the folder of those weights.
        reward: the adapter belongs to a reward model.
        code: whether Python code in that folder may run.

    Raises:
        ChildError: merging failed.
    """
    adapter, policy = attempt / "adapter", attempt / "policy"
    record_base(adapter, start, train)
    if train.beside:
        if train.quantize:  # it was trained on 4-bit weights, and computes right with exactly those
            merge(start, None, policy, lock, reward, code, train)
        put_beside(start, adapter, policy, reward, linked=not train.quantize)
    else:
        merge(start, adapter, policy, lock, reward, code)


def put_beside(start: Path, adapter: Path, policy: Path, reward: bool = False, linked: bool = True) -> None:
    """Make a policy of an adapter that cannot be merged: the files of the base, and the adapter in a folder.

    Args:
        reward: the adapter belongs to a reward model, which the configuration then says.
        linked: link the files of the base; otherwise they are there already.
    """
    policy.mkdir(exist_ok=True)
    for file in model_files(start) if linked else ():
        if file.parent == start:
            link = policy / file.name
            link.unlink(missing_ok=True)
            try:
                if file.is_symlink():  # to a file that is not the run's
                    raise OSError
                link.hardlink_to(file)
            except OSError:  # or on another file system, or one without hard links
                link.symlink_to(file.resolve())
    shutil.copytree(adapter, policy / UNMERGED, dirs_exist_ok=True)
    config = policy / "config.json"
    told = json.loads(config.read_text())
    if reward and not (told.get("architectures") or [""])[0].endswith(CLASSIFIER):
        named = [name.replace("ForCausalLM", CLASSIFIER) for name in told.get("architectures") or ()]
        told |= {"architectures": named, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        config.unlink()
        write_json(config, told)


def virtual_tokens(trained: Mapping[str, TrainConfig], context: int) -> int:
    """How many virtual tokens new adapters put in front of every prompt.

    Raises:
        AdapterError: they leave no room in the context.
    """
    most = 0
    for setting, one in trained.items():
        adapter = one.adapter
        if adapter is not None and adapter.tokens >= context:
            raise AdapterError(
                f"{setting}.adapter has {adapter.tokens:,} virtual tokens, which fill the context of {context:,}.",
                what_next=f"Lower {setting}.adapter.{adapter.kind.replace('-', '_')}.tokens.",
            )
        most = max(most, adapter.tokens if adapter else 0)
    return most


def check_continued(folder: Path, trained: Mapping[str, TrainConfig]) -> None:
    """Check that training goes on with the adapter that a policy has beside its weights, if it has one.

    Raises:
        AdapterError: it would train something else, and the adapter would be lost.
    """
    adapter = unmerged(folder)
    if adapter is None:
        return
    told = json.loads((adapter / "adapter_config.json").read_text())
    had = AdapterConfig.model_validate(told.get("settings", told)).model_copy(update={"quantize": False})
    for setting, one in trained.items():
        if one.adapter is None or one.adapter.model_copy(update={"quantize": False}).model_dump() != had.model_dump():
            raise AdapterError(
                f"The policy in {folder} has an adapter of the kind {had.kind} beside its weights, but "
                f"{setting}.adapter is not the same.",
                what_next=f"Give {setting}.adapter the settings in {adapter / 'adapter_config.json'}, or start from "
                "the model without it.",
            )


def merge(
    policy: Path,
    adapter: Path | None,
    output: Path,
    lock: Path,
    reward: bool = False,
    code: ModelCode = "refuse",
    train: TrainConfig | None = None,
) -> list[str]:
    """Merge an adapter into the policy that it was trained on, in a separate program; return the command.

    Args:
        adapter: None writes the policy's weights as an adapter of `train` was trained on them: in 4 bits, dequantized.
        reward: the adapter belongs to a reward model.
        code: whether Python code in the policy's folder may run.

    Raises:
        ChildError: the program failed.
    """
    base = train if adapter is None else read_base(adapter)
    held = {"dtype": base.dtype, "quantize": base.quantize} if base else {}
    told = {"policy": policy, "adapter": adapter, "output": output, "reward": reward, "model_code": code, **held}
    program = MergeProgram.model_validate(told)
    file = output.with_name(MERGE)
    file.write_text(program.model_dump_json(indent=2))
    command = [sys.executable, "-m", "models.training.merge", str(file)]
    Run.start(command, output.with_name("log.txt"), lock, run_logger())
    return command
