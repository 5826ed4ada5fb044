"""A model's folder, local or on the hub: finding it, the policy's files, its digest, its errors."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from data.files import file_sha256, write_json
from data.hub import meant_as_path, why_unreachable
from models.config import ModelCode
from models.estimate import WeightsError, parameters_of
from models.loading import ModelError, own_code, unmerged
from tasks.stage.contract import digest_of
from tasks.stage.environment import cache_folder
from tasks.stage.freed import no_model_error, stage_that_freed

# Files of a model folder that belong to the policy; weights in other formats would be copied needlessly.
FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
CODE = "*.py"
INDEX = "model.safetensors.index.json"  # for weights in several files: which tensor is in which file

TEMPLATE = "chat_template.jinja"
OLDER_VOCABULARIES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt")


class ModelChoice(Protocol):
    """Settings that name a model."""

    @property
    def model_code(self) -> ModelCode: ...

    @property
    def model_revision(self) -> str | None: ...


def resolve_model(model: str, choice: ModelChoice, offline: bool = False) -> Path | None:
    """Return the folder of a local model, or of a hub model in the cache, downloaded if needed and not `offline`.

    Python code is not downloaded unless it is allowed. None if `offline` and the model does not exist yet: a run may be
    planned on a model that another run has still to make.

    Raises:
        ModelError: no model at the path, or it cannot be downloaded from the hub.
        FreedError: the checkpoint at the path was freed.
    """
    path = Path(model)
    if offline and is_path(model) and not path.expanduser().exists():
        return None
    if path.exists() or model.startswith((".", "/", "~")):
        return _local_model(model, path.expanduser(), choice.model_revision)
    return _hub_model(model, choice, offline)


def is_path(model: str) -> bool:
    """Whether the name has several folders, which no hub id has."""
    return model.count("/") > 1


def _local_model(model: str, path: Path, revision: str | None) -> Path:
    _require_model(model, path)
    if revision is not None:
        raise ModelError(
            f"model_revision is {revision}, but {model} is a folder.",
            "Only a model on the hub has revisions.",
            "Leave model_revision out, or give the model's hub id.",
        )
    return path.absolute()


def _hub_model(model: str, choice: ModelChoice, offline: bool) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    unreachable = None if offline else why_unreachable()
    patterns = [*FILES, CODE] if choice.model_code == "allow" else [*FILES]
    try:
        folder = Path(
            snapshot_download(
                model,
                revision=choice.model_revision,
                allow_patterns=patterns,
                local_files_only=offline or unreachable is not None,
            )
        )
    except LocalEntryNotFoundError as error:
        if offline:
            return None
        raise ModelError(
            f"{model} is neither a folder nor in the cache, and the hub cannot be reached.",
            f"{(unreachable or str(error).splitlines()[0]).rstrip('.')}.",
            f"{meant_as_path(model)}Check the spelling and the network, or download it and give its folder.",
        ) from None
    except (HfHubHTTPError, ValueError) as error:
        of = f" of revision {choice.model_revision}" if choice.model_revision else ""
        raise ModelError(
            f"{model} is neither a folder nor a model{of} on the hub ({error}).",
            what_next=f"{meant_as_path(model)}Check the spelling.",
        ) from error
    if not offline:  # a partial download is completed before anything is planned on it
        _require_model(model, folder)
    return folder


def _require_model(model: str, folder: Path) -> None:
    if (stage := stage_that_freed(folder)) is not None:
        raise no_model_error(folder, stage)
    if problem := _wrong_with(folder):
        raise ModelError(
            f"{model} is not a model: {problem.rstrip('.')}.",
            what_next="Give a folder with config.json, *.safetensors and the tokenizer, as save_pretrained writes it, "
            "or a hub id.",
        )


def hub_commit(model: str, folder: Path) -> dict[str, str]:
    """Return the hub model and commit of a folder in the cache; empty for a user's own folder."""
    if folder.parent.name != "snapshots":
        return {}
    return {"model": model, "commit": folder.name}


def code_identity(folder: Path | None, code: ModelCode) -> dict[str, Any]:
    """Return the part of `model_code` that changes a result: allowing it, if the folder has code or is unknown yet."""
    return {"model_code": code} if code == "allow" and (folder is None or own_code(folder)) else {}


def _wrong_with(path: Path) -> str | None:
    if not path.exists():
        return "there is no such folder"
    if not (path / "config.json").is_file():
        return "it has no config.json"
    if not any(path.glob("*.safetensors")):
        return "it has no *.safetensors weights"
    if problem := _wrong_with_shards(path):
        return problem
    if not any(path.glob("tokenizer*")):
        return "it has no tokenizer files"
    if (path / "adapter_config.json").exists():
        return "it also contains an adapter (adapter_config.json), which training would apply but vLLM would not"
    try:
        parameters_of(path)
    except WeightsError as error:
        return str(error)
    return None


def _wrong_with_shards(folder: Path) -> str | None:
    """Return which weight files are missing, if any. Without an index, the weights are one file."""
    if (folder / "model.safetensors").is_file() or not (folder / INDEX).is_file():
        return None
    try:
        shards = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return f"its {INDEX} cannot be read"
    missing = sorted(name for name in shards if not (folder / name).is_file())
    return f"it lacks {', '.join(missing)}, which {INDEX} names" if missing else None


def model_files(folder: Path, code: bool = True) -> list[Path]:
    """Return the files of a model folder that belong to the policy, with those of an adapter beside its weights.

    Args:
        code: include its Python code.
    """
    patterns = [*FILES, CODE] if code else FILES
    adapter = unmerged(folder)
    beside = [file for file in adapter.iterdir() if file.is_file()] if adapter else []
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()} | {*beside})


def folder_digest(folder: Path) -> str:
    """Return the digest of a model folder's files, the same as a stage's artifact has.

    Hashes are cached in the cache folder, if there is one, by path, size and times.
    """
    memory = cache_folder() / "digests.json"
    kept = memory.parent.is_dir()  # a dry run makes none
    with FileLock(memory.with_suffix(".lock")) if kept else nullcontext():
        known = _read_digests(memory)
        hashes = {}
        for file in model_files(folder):
            stat = file.stat()
            key = f"{file.resolve()}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
            known[key] = known.get(key) or file_sha256(file)
            hashes[file.relative_to(folder).as_posix()] = known[key]
        if kept:
            write_json(memory, known)
    return digest_of(hashes)


def _read_digests(memory: Path) -> dict[str, str]:
    try:
        return dict(json.loads(memory.read_text()))
    except (FileNotFoundError, ValueError):  # lost hashes are computed again
        return {}


def same_tokenizer(policy: Path, other: Path) -> bool:
    """Whether two policies have the same vocabulary and chat template, and so read and write the same tokens."""
    ours, theirs = _vocabulary_of(policy), _vocabulary_of(other)
    return bool(ours) and ours == theirs and _template_of(policy) == _template_of(other)


def _vocabulary_of(policy: Path) -> dict[str, Any]:
    """The content of tokenizer.json, or of an older tokenizer's files, without the settings of batching."""
    whole = policy / "tokenizer.json"
    if whole.exists():
        return {
            key: value for key, value in json.loads(whole.read_text()).items() if key not in ("padding", "truncation")
        }
    return {name: (policy / name).read_bytes() for name in OLDER_VOCABULARIES if (policy / name).exists()}


def _template_of(policy: Path) -> Any:
    if (template := policy / TEMPLATE).exists():
        return template.read_text()
    config = policy / "tokenizer_config.json"
    return json.loads(config.read_text()).get("chat_template") if config.exists() else None
