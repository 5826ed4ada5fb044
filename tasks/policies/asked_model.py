"""A model that is prompted, such as a judge: its identity, and checks before anything heavy starts."""

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
from models.loading import ModelError, check_code, load_config, load_tokenizer, room_of
from tasks.policies.model_folder import code_identity, folder_digest, resolve_model
from tasks.stage.contract import Artifact
from tasks.stage.devices import gpus_held
from tasks.stage.environment import SHARED_CPU

LATER = ("rubric",)  # settings that are left out if not set, as in identities from before there were any


class AskedModelError(AutodidactError):
    """A model cannot be prompted; the message says why and what to do."""


def asked_identity(config: AskedModelConfig, told_apart: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that change the replies. The weights of a model that runs here are in `asked_artifact`.

    Args:
        told_apart: settings that the caller adds in its own form.
    """
    places = {"model", "model_code", "model_revision", "endpoint", *told_apart}
    elsewhere = {"model": config.model} if config.endpoint else {}
    told = config.model_dump(mode="json", exclude=places) | asked_code(config) | elsewhere
    return {name: value for name, value in told.items() if name not in LATER or value is not None}


def asked_code(config: AskedModelConfig) -> dict[str, Any]:
    """Return what identifies the Python code of a model that runs here, if it may run."""
    if config.endpoint or not config.model or config.model_code == "refuse":
        return {}
    here = Path(config.model)  # a policy whose weights were freed has its code still
    folder = here if here.is_dir() else resolve_model(config.model, config, offline=True)
    return code_identity(folder, config.model_code)


def asked_artifact(config: AskedModelConfig, role: str, offline: bool = False) -> Artifact | None:
    """Return the model's folder and digest; None for a model at an endpoint, which is known only by name.

    The digest is None if `offline` and the model is not in the cache.

    Args:
        role: the model's name in messages, such as "judge".

    Raises:
        AskedModelError, ModelError: no model is given, or the folder is not a model.
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
    """Refuse a model that cannot be prompted, before anything heavy starts. No endpoint is called.

    Raises:
        AskedModelError, ModelError, TemplateError: no model or name, an invalid endpoint URL, a folder that is not a
            model, or a tokenizer without a working chat template or that does not support structured output.
        UsageError: the package for endpoints is not installed.
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
            what_next="Give a folder written by save_pretrained, with the tokenizer.",
        ) from error
    if not tokenizer.chat_template:
        raise AskedModelError(
            f"The tokenizer of the {role} {config.model} has no chat template, so it cannot be prompted.",
            what_next="Choose an instruction-tuned model, or put a chat_template.jinja into its folder.",
        )
    if not tokenizer.is_fast:
        raise AskedModelError(
            f"The {role} {config.model} has a slow tokenizer, which does not support structured output.",
            what_next="Choose a model with a tokenizer.json, or serve it and give its `endpoint`.",
        )
    with naming(f"The {role} {config.model}"):
        prompt_token_ids(tokenizer, [user("Which answer is better?")])


def check_reply_fits(setting: str, max_reasoning: int, reply: int, context: int) -> None:
    """Refuse replies that leave no room for a question in the context of the model that is asked.

    Args:
        setting: the one that has `max_reasoning`, in characters.
        reply: tokens that a reply may take.

    Raises:
        AskedModelError: they do.
    """
    if reply < context:
        return
    raise AskedModelError(
        f"A reply may take {reply:,} tokens, but the model that writes it has a context of {context:,}.",
        "No question would have room beside it.",
        f"Lower {setting}.max_reasoning, now {max_reasoning:,} characters, of which each may take 4 tokens.",
    )


def asked_context(config: AskedModelConfig, role: str) -> int:
    """Return the context of a model that runs here, in tokens.

    Raises:
        AskedModelError, ModelError: it is no model.
    """
    artifact = asked_artifact(config, role)
    assert artifact is not None
    return room_of(artifact.path, config.model_code)


def _check_endpoint(config: AskedModelConfig, role: str) -> None:
    shown = str(config.endpoint)
    try:
        url = urlsplit(shown)
        usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if usable and "@" in url.netloc:
        raise AskedModelError(
            f"The {role}'s endpoint contains a user name or password, which would be written to files.",
            what_next="Give the key in the environment variable OPENAI_API_KEY.",
        )
    if not usable:
        raise AskedModelError(
            f"The {role}'s endpoint {shown!r} is not a URL.",
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
    """Hold the GPUs while the model is used, if it runs here. Yields its program's extra environment variables."""
    if config.endpoint:
        yield None
    else:
        with gpus_held():
            yield SHARED_CPU
