"""A model that is asked something, such as a judge: its identity, and what is refused before anything heavy starts."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data.chat_template import naming
from data.errors import AutodidactError
from data.extras import require_extra
from data.formats.record import user
from data.render import prompt_token_ids
from models.config import AskedModelConfig
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.policies.model_folder import code_identity, folder_digest, resolve_model
from tasks.stage.contract import Artifact
from tasks.stage.devices import gpus_held
from tasks.stage.environment import SHARED_CPU


class AskedModelError(AutodidactError):
    """A model that is to be asked something cannot be; the message says why and what to do."""


def asked_identity(config: AskedModelConfig, told_apart: Collection[str] = ()) -> dict[str, Any]:
    """What of the settings changes the replies. The weights of a model that runs here are in `asked_artifact`.

    Args:
        told_apart: settings that the caller states in a form of its own.
    """
    places = {"model", "model_code", "model_revision", "endpoint", *told_apart}
    elsewhere = {"model": config.model} if config.endpoint else {}
    return config.model_dump(mode="json", exclude=places) | _code(config) | elsewhere


def _code(config: AskedModelConfig) -> dict[str, Any]:
    if config.endpoint or not config.model or config.model_code == "refuse":
        return {}
    return code_identity(resolve_model(config.model, config, offline=True), config.model_code)


def asked_artifact(config: AskedModelConfig, role: str, offline: bool = False) -> Artifact | None:
    """The model's folder and its digest; None for a model at an endpoint, which is known by its name only.

    The digest is None if `offline` and the model is not in the cache.

    Args:
        role: what the model is called in messages, such as "judge".

    Raises:
        AskedModelError, ModelError: there is none, or it is no model.
    """
    if config.endpoint:
        return None
    if not config.model:
        raise AskedModelError(
            f"The {role} has no model.",
            what_next="Give its `model`: a folder or a hub id, or a name and an `endpoint`.",
        )
    folder = resolve_model(config.model, config, offline)
    return Artifact(folder or Path(config.model), folder_digest(folder) if folder else None)


def check_asked(config: AskedModelConfig, role: str) -> None:
    """Refuse a model that cannot be asked anything, before anything heavy starts. No endpoint is called.

    Raises:
        AskedModelError, ModelError, TemplateError: no model or name, no URL of an endpoint, a folder that is no model,
            or a tokenizer that has no chat template that works, or is none that replies can be held to a form with.
        UsageError: the package that speaks to endpoints is not installed.
    """
    if config.endpoint:
        _check_endpoint(config, role)
        return
    artifact = asked_artifact(config, role)
    assert artifact is not None
    check_code(artifact.path, config.model_code, "AutoModelForCausalLM")
    try:
        tokenizer = load_tokenizer(artifact.path, config.model_code)
        load_config(artifact.path, config.model_code)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"The {role} {config.model} cannot be read as a model: {error}.",
            what_next="Give a folder as save_pretrained writes it, with the tokenizer.",
        ) from error
    if not tokenizer.chat_template:
        raise AskedModelError(
            f"The tokenizer of the {role} {config.model} has no chat template, so it cannot be asked anything.",
            what_next="Choose a model that was trained to answer, or put a chat_template.jinja into its folder.",
        )
    if not tokenizer.is_fast:
        raise AskedModelError(
            f"The {role} {config.model} has a slow tokenizer, with which replies cannot be held to a form.",
            what_next="Choose a model with a tokenizer.json, or serve it and give its `endpoint`.",
        )
    with naming(f"The {role} {config.model}"):
        prompt_token_ids(tokenizer, [user("Which answer is better?")])


def _check_endpoint(config: AskedModelConfig, role: str) -> None:
    shown = str(config.endpoint)
    try:
        url = urlsplit(shown)
        usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if usable and "@" in url.netloc:
        raise AskedModelError(
            f"The {role}'s endpoint holds a user or a password, which would be written to files.",
            what_next="Give the key in the environment variable OPENAI_API_KEY.",
        )
    if not usable:
        raise AskedModelError(
            f"The {role}'s endpoint {shown!r} is no URL.",
            what_next="Give one such as http://localhost:8000/v1.",
        )
    if not config.model:
        raise AskedModelError(
            f"The {role} at {shown} has no model.",
            what_next="Give its `model`: the name that the server knows it by.",
        )
    require_extra("openai", f"The {role} at {shown}")


@contextmanager
def engine_room(config: AskedModelConfig) -> Iterator[Mapping[str, str] | None]:
    """Hold what the model needs while it is asked: the GPUs, if it runs here. Gives its program's further variables."""
    if config.endpoint:
        yield None
    else:
        with gpus_held():
            yield SHARED_CPU
