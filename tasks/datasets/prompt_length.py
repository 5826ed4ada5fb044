"""Room for answers: what a policy can attend to, and prompts that leave none."""

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from data.chat_template import Options, choose_template, naming, require_template
from data.formats import Message
from data.prepare.fitting import cut_from_left
from data.prepare.reading import Tally
from data.render import (
    check_room,
    completion_token_ids,
    context_length,
    prompt_token_ids,
    require_end,
    stop_token_ids,
)
from data.rows import Problem, problem_id
from models import tiny
from models.estimate import embedding_rows
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.policies.base import demonstrations
from tasks.policies.model_folder import ModelChoice, resolve_model

TOO_LONG = "prompt_too_long"
NO_LIMIT = 1 << 40


class PromptLengths:
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
        """Refuse a finished prompt that cannot be rendered, or that will be answered and leaves no room for it.

        Raises:
            PromptTooLongError: naming the problem and the three lengths.
            TemplateError: naming the problem.
        """
        length = self._length(problem)
        if self._is_answered(problem):
            check_room(length, self.config.generate.max_tokens, self.context, problem.id)

    def token_ids(self, messages: Sequence[Message], place: str) -> list[int]:
        """A prompt as the policy will see it.

        Raises:
            TemplateError, ModelError: naming `place`: it cannot be rendered, or has tokens that the model lacks.
        """
        with naming(place):
            ids = prompt_token_ids(self.tokenizer, messages)
        if (highest := max(ids, default=0)) >= self._read.embeddings:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise beyond_embeddings(f"{place}: the prompt has", token, highest, self._read.embeddings)
        return ids

    def settings(self) -> dict[str, Any]:
        """What the problems of the loop depend on, where prompts are cut or dropped. Nothing is fetched for it."""
        if self.config.long_prompts == "refuse":
            return {}
        told = {"long_prompts": self.config.long_prompts, "max_tokens": self.config.generate.max_tokens}
        if self.config.model is not None and resolve_model(self.config.model, self.config, offline=True) is None:
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
        return self._read.tokenizer

    @property
    def context(self) -> int:
        """Tokens that the policy can attend to."""
        return min(self._read.context, self.config.engine.max_model_len or 1 << 30)

    @cached_property
    def _read(self) -> "ModelTokenizer":
        config = self.config
        if config.model is not None:
            return model_tokenizer(config)
        tokenizer = copy(_embedded_tokenizer(config.seed))
        choose_template(tokenizer, config.template, config.template_options)
        return ModelTokenizer(tokenizer, tiny.CONTEXT, tiny.VOCABULARY)

    @property
    def _longest_row(self) -> int:
        """Tokens that a training row may have which nobody answers."""
        packed = getattr(self.config.train, "pack_to", None)  # pairs are never packed
        return min(self._read.context, packed or 1 << 30)

    def _room(self, problem: Problem) -> int:
        if not self._is_answered(problem):
            return self._longest_row - len(completion_token_ids(self.tokenizer, problem.response or ""))
        return self.context - int(self.config.generate.max_tokens)

    def _is_answered(self, problem: Problem) -> bool:
        return bool(self.config.answers_training_prompts) if problem.split == "train" else self._answers_held_out

    @cached_property
    def _answers_held_out(self) -> bool:  # for which data sets may be looked at
        return bool(self.config.answers_held_out)

    def _length(self, problem: Problem) -> int:
        return len(self.token_ids(problem.messages, f"Problem {problem.id} of {problem.source}"))


@cache  # a run asks before it starts and once more when it does
def _embedded_tokenizer(seed: int) -> Any:
    texts = [t for p in demonstrations(seed, 3000) for t in (p.messages[0]["content"], p.response or "")]
    return tiny.tiny_tokenizer(texts)


class ModelTokenizer(NamedTuple):
    """A model's tokenizer with its chat template, and what the model can take: tokens in all, and token ids."""

    tokenizer: Any
    context: int
    embeddings: int


class ReadModel(ModelChoice, Protocol):
    """Settings that say what reads prompts: a model by path or hub id; its template, or another, with options."""

    @property
    def model(self) -> str | None: ...

    @property
    def template(self) -> Path | None: ...

    @property
    def template_options(self) -> Options: ...


def model_tokenizer(choice: ReadModel) -> ModelTokenizer:
    """The tokenizer of a model, and what the model can take.

    Raises:
        ModelError: the model cannot be read, or needs code of its own that is refused.
        TemplateError: there is no chat template, it has no such option, or nothing tells the end of an answer.
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
            what_next="Give a folder as save_pretrained writes it, with the tokenizer.",
        ) from error
    choose_template(tokenizer, choice.template, choice.template_options)
    require_template(tokenizer, model)
    require_end(tokenizer, model)
    embeddings = min(embedding_rows(folder) or NO_LIMIT, config.get_text_config().vocab_size or NO_LIMIT)
    if (end := stop_token_ids(tokenizer)[-1]) >= embeddings:
        raise beyond_embeddings(f"{model} ends an answer with the", tokenizer.decode([end]), end, embeddings)
    return ModelTokenizer(tokenizer, context_length(config), embeddings)


def beyond_embeddings(whose: str, token: str, token_id: int, embeddings: int) -> ModelError:
    """The error for a token that the tokenizer knows and the model does not."""
    return ModelError(
        f"{whose} token {token!r} with the id {token_id:,}, and the model has embeddings for {embeddings:,} tokens.",
        "Tokens were added to the tokenizer, and none to the model.",
        "Resize the model's embeddings (resize_token_embeddings) and save both, or give the tokenizer that belongs to "
        "the model.",
    )
