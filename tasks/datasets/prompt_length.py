"""A policy's tokenizer, and how long a prompt may be so that an answer still fits."""

import hashlib
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from data.chat_template import Options, choose_template, require_template
from data.prepare.prompt_lengths import PolicyTokenizer, PromptLengths, VocabularyError
from data.render import context_length, require_end, stop_token_ids
from data.rows import SPLITS
from models import tiny
from models.estimate import embedding_rows
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.policies.adapter import virtual_tokens
from tasks.policies.base import demonstrations
from tasks.policies.model_folder import ModelChoice, resolve_model

NO_LIMIT = 1 << 40


def policy_tokenizer(config: Any) -> PolicyTokenizer:
    """Return the tokenizer of the policy that a run starts from.

    Raises:
        ModelError: the model cannot be read.
        TemplateError: there is no chat template.
    """
    if config.model is not None:
        return model_tokenizer(config)
    tokenizer = copy(_embedded_tokenizer(config.seed))
    choose_template(tokenizer, config.template, config.template_options)
    return PolicyTokenizer(tokenizer, tiny.CONTEXT, tiny.VOCABULARY)


def prompt_lengths(config: Any) -> PromptLengths:
    """Return how long the prompts of a loop may be.

    Args:
        config: settings of a loop, with its policy.

    Raises:
        ModelError, TemplateError: see `policy_tokenizer`.
        AdapterError: virtual tokens leave no room in the context.
    """
    reads = policy_tokenizer(config)
    room = reads.context - virtual_tokens(config.trained, reads.context)
    packed = getattr(config.train, "pack_to", None)  # pairs are never packed
    answered = {"train": config.answers_training_prompts} | dict.fromkeys(SPLITS[1:], config.answers_held_out)
    return PromptLengths(
        reads,
        min(room, config.engine.max_model_len or NO_LIMIT),
        min(room, packed or NO_LIMIT),
        config.generate.max_tokens,
        frozenset(split for split, asked in answered.items() if asked),
        config.long_prompts,
    )


def length_settings(config: Any) -> dict[str, Any]:
    """Return what the problems of a loop depend on if long prompts are cut or dropped. Downloads nothing."""
    if config.long_prompts == "refuse":
        return {}
    told = {"long_prompts": config.long_prompts, "max_tokens": config.generate.max_tokens}
    if config.model is not None and resolve_model(config.model, config, offline=True) is None:
        return told | {"model": config.model}  # not downloaded yet, so no stage can have been made with it
    lengths = prompt_lengths(config)
    tokenizer = lengths.reads.tokenizer
    vocabulary = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
    template = require_template(tokenizer, config.model or "the embedded model")
    limits = {"context": lengths.context, "longest_row": lengths.longest_row}
    return told | limits | {"tokenizer": vocabulary, "template": template}


@cache  # called before a run starts, and again when it does
def _embedded_tokenizer(seed: int) -> Any:
    texts = [t for p in demonstrations(seed, 3000) for t in (p.messages[0]["content"], p.response or "")]
    return tiny.tiny_tokenizer(texts)


class ReadModel(ModelChoice, Protocol):
    """Settings of what reads prompts: a model by path or hub id; its template, or another, with options."""

    @property
    def model(self) -> str | None: ...

    @property
    def template(self) -> Path | None: ...

    @property
    def template_options(self) -> Options: ...


def model_tokenizer(choice: ReadModel) -> PolicyTokenizer:
    """Return a model's tokenizer, context length and vocabulary size.

    Raises:
        ModelError: the model cannot be read, or needs its own Python code, which is refused.
        VocabularyError: the end-of-turn token has no embedding.
        TemplateError: there is no chat template, it has no such option, or nothing marks the end of an answer.
    """
    model, code = str(choice.model), choice.model_code
    folder = resolve_model(model, choice)
    assert folder is not None
    check_code(folder, code, "AutoModelForCausalLM")
    try:
        tokenizer, config = load_tokenizer(folder, code), load_config(folder, code)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model} cannot be read as a model: {error}.",
            what_next="Give a folder written by save_pretrained, with the tokenizer.",
        ) from error
    choose_template(tokenizer, choice.template, choice.template_options)
    require_template(tokenizer, model)
    require_end(tokenizer, model)
    embeddings = min(embedding_rows(folder) or NO_LIMIT, config.get_text_config().vocab_size or NO_LIMIT)
    if (end := stop_token_ids(tokenizer)[-1]) >= embeddings:
        raise VocabularyError(f"{model} ends an answer with the", tokenizer.decode([end]), end, embeddings)
    return PolicyTokenizer(tokenizer, context_length(config), embeddings)
