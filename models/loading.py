"""Loads the contents of a model's folder: tokenizer, configuration, weights. Nothing else in the project does.

Python code in such a folder (its `auto_map`) runs only if `model_code` is `allow`. Unless told, Transformers would ask
on stdin. Weights are read only from safetensors, since a pickle can also run code.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from data.errors import AutodidactError
from data.render import context_length
from models.adapters.settings import UNMERGED as NOT_MERGED
from models.adapters.settings import Kind as UnmergedKind
from models.config import ModelCode

Kind = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification"]
# Files with an `auto_map`. It may name several classes for one: a slow and a fast tokenizer.
_MAPPED = ("config.json", "tokenizer_config.json")
UNMERGED = "adapter"  # folder of an adapter in that of its policy
_ELSEWHERE = "--"  # between a repository and a class in it


class ModelError(AutodidactError):
    """The model cannot be used."""


def load_tokenizer(folder: Path, code: ModelCode, **settings: Any) -> Any:
    """The tokenizer in `folder`.

    Args:
        settings: further arguments of Transformers' `from_pretrained`.

    Raises:
        ModelError: it needs its own code, which is refused.
    """
    from transformers import AutoTokenizer

    with _code_explained(folder, code):
        return AutoTokenizer.from_pretrained(folder, **_trust(code), **settings)


def unmerged(folder: Path) -> Path | None:
    """The trained adapter of a policy that is not merged into its weights, but lies beside them."""
    found = folder / UNMERGED
    return found if _kind_beside(found) is not None else None


def kind_beside(adapter: Path) -> UnmergedKind:
    """The kind of a trained adapter that is not merged."""
    kind = _kind_beside(adapter)
    assert kind is not None
    return kind


def _kind_beside(adapter: Path) -> UnmergedKind | None:
    """The kind of an adapter that a run has put there; None if it is another's, or none."""
    try:
        told = json.loads((adapter / "adapter_config.json").read_text())
        kind = told.get("settings", told).get("kind")
    except (OSError, ValueError, AttributeError):
        return None
    return kind if kind in NOT_MERGED else None


def virtual_tokens(folder: Path) -> int:
    """How many virtual tokens the policy in `folder` has in front of every prompt."""
    adapter = unmerged(folder)
    return int(json.loads((adapter / "adapter_config.json").read_text()).get("num_virtual_tokens", 0)) if adapter else 0


def room_of(folder: Path, code: ModelCode, most: int | None = None) -> int:
    """The context of the policy in `folder`, in tokens, without its virtual ones.

    Args:
        most: a setting that says otherwise, if there is one.

    Raises:
        ModelError: it needs its own code, which is refused.
    """
    in_front = virtual_tokens(folder)
    if most is not None and not in_front:
        return most
    room = context_length(load_config(folder, code)) - in_front
    return room if most is None else min(most, room)


def load_config(folder: Path, code: ModelCode) -> Any:
    """Transformers' configuration of the model in `folder`.

    Raises:
        ModelError: it needs its own code, which is refused.
    """
    from transformers import AutoConfig

    with _code_explained(folder, code):
        return AutoConfig.from_pretrained(folder, **_trust(code))


def load_weights(kind: Kind, folder: Path, code: ModelCode, bare: bool = False, **settings: Any) -> Any:
    """The model in `folder`, as the requested kind, with its adapter if that is not merged.

    Args:
        bare: leave out such an adapter.
        settings: further arguments of Transformers' `from_pretrained`.

    Raises:
        ModelError: it needs its own code, which is refused.
    """
    import transformers

    with _code_explained(folder, code):
        found = getattr(transformers, kind)
        model = found.from_pretrained(folder, use_safetensors=True, **_trust(code), **settings)
    adapter = None if bare else unmerged(folder)
    if adapter is None:
        return model
    from models.adapters.kinds import load_unmerged

    return load_unmerged(model, adapter)


def random_weights(config: Any, code: ModelCode, **settings: Any) -> Any:
    """A causal language model with random weights.

    Args:
        config: from `load_config`.
        settings: further arguments of Transformers' `from_config`.

    Raises:
        ModelError: it needs its own code, which is refused.
    """
    from transformers import AutoModelForCausalLM

    with _code_explained(Path(config.name_or_path), code):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=code == "allow", **settings)


def engine_arguments(code: ModelCode) -> dict[str, Any]:
    """vLLM's arguments for code and weights."""
    return {"trust_remote_code": code == "allow", "load_format": "safetensors"}


def own_code(folder: Path) -> list[str]:
    """Classes that a model's folder names as its own code, such as `modeling_own.OwnForCausalLM`."""
    named = [_auto_map(folder / name) for name in _MAPPED]
    return sorted({reference for mapped in named for references in mapped.values() for reference in references})


def check_code(folder: Path, code: ModelCode, kind: Kind) -> None:
    """Refuse a model whose weights need code that may not run. Loads nothing.

    Raises:
        ModelError: Transformers lacks the model's class and its own code is refused, or that code is elsewhere.
    """
    if code == "allow":
        elsewhere = next((reference for reference in own_code(folder) if _ELSEWHERE in reference), None)
        if elsewhere is not None:
            raise ModelError(
                f"The code of {folder} is in another repository ({elsewhere}).",
                "Its files can change without any digest of a run changing.",
                "Copy them into the folder and remove the repository's name from auto_map; or leave model_code at "
                "refuse, if Transformers knows the model.",
            )
        return
    if kind not in _auto_map(folder / "config.json"):
        return
    from transformers.models.auto import modeling_auto

    names = {
        "AutoModelForCausalLM": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    try:
        known = load_config(folder, code).model_type in names[kind]
    except (OSError, ValueError, KeyError, TypeError):  # a type that Transformers does not know
        known = False
    if not known:
        raise _refused(folder)


def _trust(code: ModelCode) -> dict[str, Any]:
    return {"trust_remote_code": code == "allow", "local_files_only": True}


@contextmanager
def _code_explained(folder: Path, code: ModelCode) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if code == "refuse" and "trust_remote_code" in str(error):  # here another setting controls it
            raise _refused(folder) from error
        raise


def _refused(folder: Path) -> ModelError:
    return ModelError(
        f"The model in {folder} needs its own Python code ({', '.join(own_code(folder))}).",
        "That would run in your processes, with your files and your keys, so it is refused by default.",
        "Read it; if you trust it, set the model's model_code to allow (--model-code allow for the policy).",
    )


def _auto_map(file: Path) -> dict[str, list[str]]:
    """The model's own classes that a file names, by the class they replace."""
    try:
        mapped = json.loads(file.read_text()).get("auto_map") or {}
    except (OSError, ValueError, AttributeError):  # loading the file reports the error
        return {}
    if not isinstance(mapped, dict):  # the old format of tokenizers
        mapped = {"AutoTokenizer": mapped}
    as_lists = {kind: found if isinstance(found, list) else [found] for kind, found in mapped.items()}
    return {kind: [name for name in found if isinstance(name, str)] for kind, found in as_lists.items()}
