"""Room for answers: what a policy can attend to, and prompts that leave none."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.fitting import cut_from_left
from data.render import completion_token_ids, context_length, prompt_token_ids, require_template, template_file
from data.rows import Problem
from data.splits import Finish
from models import tiny
from tasks.policy import ModelError, demonstrations, resolve_model


def tokenizer_and_context(config: Any) -> tuple[Any, int]:
    """The tokenizer of a loop's policy, with its chat template, and how many tokens the policy can attend to.

    Raises:
        ModelError: the model cannot be read.
        TemplateError: there is no chat template.
    """
    if config.model is None:
        texts = [t for p in demonstrations(config.seed, 3000) for t in (p.messages[0]["content"], p.response or "")]
        tokenizer, context = tiny.tiny_tokenizer(texts), tiny.CONTEXT
        if config.template:
            tokenizer.chat_template = template_file(config.template).read_text()
    else:
        tokenizer, context = model_tokenizer(config.model, config.template)
    return tokenizer, min(context, config.engine.max_model_len or context)


def model_tokenizer(model: str, template: Path | None) -> tuple[Any, int]:
    """The tokenizer of a model, and how many tokens the model can attend to.

    Args:
        model: path or hub id.
        template: a chat template by name or file, in place of the tokenizer's own.

    Raises:
        ModelError: the model cannot be read.
        TemplateError: there is no chat template.
    """
    from transformers import AutoConfig, AutoTokenizer

    folder = resolve_model(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        context = context_length(AutoConfig.from_pretrained(folder))
    except Exception as error:
        raise ModelError(f"{model} cannot be read as a model: {error}") from error
    if template:
        tokenizer.chat_template = template_file(template).read_text()
    require_template(tokenizer, model)
    return tokenizer, context


def room_for_prompt(tokenizer: Any, context: int, config: Any, split: str, response: str | None) -> int:
    """Tokens that a prompt may have: what the longest answer leaves, or the gold one where no other is asked for."""
    if split == "train" and not config.answers_training_prompts:
        return context - len(completion_token_ids(tokenizer, response or ""))
    return context - int(config.generate.max_tokens)


def fit_prompts(config: Any) -> tuple[Finish, Mapping[str, Any]]:
    """What is done to a prompt that leaves no room for an answer, and the settings on which that depends."""
    if config.long_prompts == "refuse":
        return lambda problem, _: problem, {}
    tokenizer, context = tokenizer_and_context(config)

    def length_of(messages: list[dict[str, str]]) -> int:
        return len(prompt_token_ids(tokenizer, messages))

    def fit(problem: Problem, dropped: Counter[str]) -> Problem | None:
        room = room_for_prompt(tokenizer, context, config, problem.split, problem.response)
        if length_of(problem.messages) <= room:
            return problem
        cut = cut_from_left(problem.messages, room, length_of) if config.long_prompts == "cut" else None
        if cut is None:
            dropped["prompt_too_long"] += 1
            return None
        return replace(problem, messages=cut)

    vocabulary = hashlib.sha256(repr(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()
    settings = {
        "long_prompts": config.long_prompts,
        "context": context,
        "max_tokens": config.generate.max_tokens,
        "tokenizer": vocabulary,
        "template": require_template(tokenizer, config.model or "the embedded model"),
    }
    return fit, settings
