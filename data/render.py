"""The one renderer: prompts and completions become token ids here, for generation, training and evaluation alike."""

import hashlib
from collections.abc import Sequence
from typing import Any

Messages = Sequence[dict[str, str]]


class PromptTooLongError(ValueError):
    """A prompt leaves no room for an answer."""


class TemplateError(ValueError):
    """The tokenizer has no chat template, and none was given."""


def prompt_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a prompt, up to where the policy's answer begins.

    The chat template alone decides on special tokens: no second BOS is added.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        messages: the turns, `{"role": …, "content": …}`.
    """
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
    return list(ids)


def completion_token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a finished answer written by a person: its text, then EOS."""
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def answer_token_ids(tokenizer: Any, text: str, token_ids: list[int] | None) -> list[int]:
    """Token ids of an answer to train on: exactly those a policy generated, or a person's answer rendered."""
    return token_ids or completion_token_ids(tokenizer, text)


def require_template(tokenizer: Any, source: str) -> str:
    """Digest of the tokenizer's chat template, which belongs to the identity of what is rendered with it.

    Raises:
        TemplateError: it has none.
    """
    if not tokenizer.chat_template:
        raise TemplateError(
            f"The tokenizer of {source} has no chat template, so prompts cannot be rendered. "
            f"Give one with --template FILE (a Jinja chat template), or choose a model that has one."
        )
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def context_length(config: Any) -> int:
    """Tokens that a model with this Hugging Face configuration can attend to; very many if it does not say."""
    return int(getattr(config, "max_position_embeddings", 0) or 1 << 30)


def check_room(prompt_tokens: int, max_tokens: int, context: int, problem: str) -> None:
    """Refuse a prompt after which an answer of `max_tokens` does not fit into the context.

    Raises:
        PromptTooLongError: naming the problem and the three lengths.
    """
    if prompt_tokens + max_tokens > context:
        raise PromptTooLongError(
            f"Problem {problem} has a prompt of {prompt_tokens} tokens; with {max_tokens} for the answer it does not "
            f"fit into the context of {context}. Lower generate.max_tokens, shorten or remove the problem, or choose "
            f"a model with a longer context."
        )
