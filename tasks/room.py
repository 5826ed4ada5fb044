"""Room for answers: what a policy can attend to, and prompts that leave none."""

import hashlib
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from data.fitting import cut_from_left
from data.formats import Message
from data.reading import Tally
from data.render import (
    check_room,
    completion_token_ids,
    context_length,
    prompt_token_ids,
    require_template,
    template_file,
)
from data.rows import Problem, problem_id
from models import tiny
from tasks.policy import ModelError, demonstrations, resolve_model

TOO_LONG = "prompt_too_long"


class PromptRoom:
    """Whether the prompts of a loop leave room for an answer, and what is done with those that leave none.

    A prompt has to leave as much as the longest answer takes. A training prompt that is not answered, as in SFT, has to
    leave what its gold answer takes; `refuse` lets it pass, since the stage that makes training rows counts those that
    are too long.

    Args:
        config: settings of a loop, with its policy.
    """

    def __init__(self, config: Any) -> None:
        self.config = config

    def fit(self, problem: Problem, prompted: Callable[[Problem], Problem], tally: Tally) -> Problem | None:
        """A problem whose prompt is cut if it is too long, or None if such prompts are dropped; both are counted.

        Args:
            prompted: puts before the prompt what the loop puts there. Of that nothing is cut.
        """
        if self.config.long_prompts == "refuse":
            return problem
        room = self._room(problem)

        def length_of(messages: list[Message]) -> int:
            return self._length(prompted(replace(problem, messages=messages)))

        if length_of(problem.messages) <= room:
            return problem
        cut = cut_from_left(problem.messages, room, length_of) if self.config.long_prompts == "cut" else None
        if cut is None:
            tally.drop(TOO_LONG, f"a prompt of {problem.source}")
            return None
        tally.cut += 1
        return replace(problem, id=problem_id(cut), messages=cut)

    def check(self, problem: Problem) -> None:
        """Refuse a finished prompt that will be answered and leaves no room for it.

        Raises:
            PromptTooLongError: naming the problem and the three lengths.
        """
        if problem.split != "train" or self.config.answers_training_prompts:
            check_room(self._length(problem), self.config.generate.max_tokens, self.context, problem.id)

    def settings(self) -> dict[str, Any]:
        """What the problems of the loop depend on, where prompts are cut or dropped. Nothing is fetched for it."""
        if self.config.long_prompts == "refuse":
            return {}
        told = {"long_prompts": self.config.long_prompts, "max_tokens": self.config.generate.max_tokens}
        if self.config.model is not None and resolve_model(self.config.model, offline=True) is None:
            return told | {"model": self.config.model}  # not fetched yet, so no stage can have been made with it
        vocabulary = hashlib.sha256(repr(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()
        template = require_template(self.tokenizer, self.config.model or "the embedded model")
        limits = {"context": self.context, "longest_row": self._longest_row}
        return told | limits | {"tokenizer": vocabulary, "template": template}

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer, with its chat template.

        Raises:
            ModelError: the model cannot be read.
            TemplateError: there is no chat template.
        """
        return self._tokenizer_and_context[0]

    @property
    def context(self) -> int:
        """Tokens that the policy can attend to."""
        return min(self._tokenizer_and_context[1], self.config.engine.max_model_len or 1 << 30)

    @cached_property
    def _tokenizer_and_context(self) -> tuple[Any, int]:
        config = self.config
        if config.model is not None:
            return model_tokenizer(config.model, config.template)
        tokenizer = copy(_embedded_tokenizer(config.seed))
        if config.template:
            tokenizer.chat_template = template_file(config.template).read_text()
        return tokenizer, tiny.CONTEXT

    @property
    def _longest_row(self) -> int:
        """Tokens that a training row may have which nobody answers."""
        packed = getattr(self.config.train, "pack_to", None)  # pairs are never packed
        return min(self._tokenizer_and_context[1], packed or 1 << 30)

    def _room(self, problem: Problem) -> int:
        if problem.split == "train" and not self.config.answers_training_prompts:
            return self._longest_row - len(completion_token_ids(self.tokenizer, problem.response or ""))
        return self.context - int(self.config.generate.max_tokens)

    def _length(self, problem: Problem) -> int:
        return len(prompt_token_ids(self.tokenizer, problem.messages))


@cache  # a run asks before it starts and once more when it does
def _embedded_tokenizer(seed: int) -> Any:
    texts = [t for p in demonstrations(seed, 3000) for t in (p.messages[0]["content"], p.response or "")]
    return tiny.tiny_tokenizer(texts)


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
        raise ModelError(
            f"{model} cannot be read as a model: {error}.",
            what_next="Give a folder as save_pretrained writes it, with the tokenizer.",
        ) from error
    if template:
        tokenizer.chat_template = template_file(template).read_text()
    require_template(tokenizer, model)
    return tokenizer, context
