"""The one renderer: prompts and completions become token ids here, for generation, training and evaluation alike."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

from jinja2 import TemplateSyntaxError

from data.errors import AutodidactError

Messages = Sequence[dict[str, str]]
TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
QUOTED = 80  # characters of a prompt in an error


class PromptTooLongError(AutodidactError):
    """A prompt leaves no room for an answer."""


class TemplateError(AutodidactError):
    """There is no chat template, or it cannot do what is asked of it."""

    def at(self, place: str) -> Self:
        """The same error, naming the row that cannot be rendered."""
        return type(self)(f"{place}: {self.what}", self.why, self.what_next)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Rows that are rendered inside are at `place`, such as "FILE, line 3": an error says so.

    Raises:
        TemplateError: with that place.
    """
    try:
        yield
    except TemplateError as error:
        raise error.at(place) from error


def prompt_token_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a prompt, up to where the policy's answer begins.

    The chat template alone decides on special tokens: no second BOS is added. The ids are what `apply_chat_template`
    gives, but that no token reaches over the beginning or the end of an earlier answer.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        messages: the turns, `{"role": …, "content": …}`.

    Raises:
        TemplateError: the chat template fails on them, or leaves out what the user says.
    """
    return prompt_and_answers(tokenizer, messages)[0]


def prompt_and_answers(tokenizer: Any, messages: Messages) -> tuple[list[int], list[bool]]:
    """Token ids of a prompt, and which of them belong to the assistant's earlier answers, their EOS included.

    Where a template changes earlier answers (some leave out what was thought), no token belongs to them.
    """
    text = _rendered(tokenizer, messages)
    pieces = list(_pieces(tokenizer, messages, text))
    whole = tokenizer(text, add_special_tokens=False, return_offsets_mapping=len(pieces) > 1 and tokenizer.is_fast)
    ids = list(whole["input_ids"])
    if len(pieces) == 1:
        return ids, [False] * len(ids)
    if tokenizer.is_fast:
        ends, position = set(), 0
        for piece, _ in pieces:
            ends.add(position := position + len(piece))
        starts = [start for start, _ in whole["offset_mapping"]]
        if ends - {len(text)} <= set(starts):
            return ids, _answers(starts, pieces)
    apart = [(tokenizer(piece, add_special_tokens=False)["input_ids"], answer) for piece, answer in pieces]
    return [i for part, _ in apart for i in part], [answer for part, answer in apart for _ in part]


def completion_token_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a finished answer written by a person: its text, then EOS.

    Where the template puts a blank before an answer, it belongs to the answer, as it would if a policy had written it.
    """
    said = _lead(tokenizer, str(tokenizer.chat_template)) + text
    return [*tokenizer(said, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def template_file(template: Path) -> Path:
    """The file of a chat template that is given by name or file.

    Raises:
        TemplateError: there is neither; with the names that there are.
    """
    known = {path.stem: path for path in TEMPLATES}
    path = template if template.is_file() else known.get(str(template))
    if path is None:
        raise TemplateError(
            f"There is no template {template}: neither a file, looked for from {Path.cwd()}, nor one with a name.",
            what_next=f"Known names are {', '.join(known)}.",
        )
    return path


def answer_token_ids(tokenizer: Any, text: str, token_ids: list[int] | None) -> list[int]:
    """Token ids of an answer to train on: exactly those a policy generated, or a person's answer rendered."""
    return token_ids or completion_token_ids(tokenizer, text)


def judged_token_ids(tokenizer: Any, messages: Messages, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, and of a finished answer to it that is to be judged.

    The answer is rendered from its text: whoever wrote it may have another tokenizer. White space around it is no part
    of it, since a person's answer has none and a policy's own often begins with some.
    """
    return prompt_token_ids(tokenizer, messages), completion_token_ids(tokenizer, text.strip())


def require_template(tokenizer: Any, source: str) -> str:
    """Digest of the tokenizer's chat template, which belongs to the identity of what is rendered with it.

    Raises:
        TemplateError: it has none.
    """
    if not tokenizer.chat_template:
        raise TemplateError(
            f"The tokenizer of {source} has no chat template, so prompts cannot be rendered.",
            what_next=f"Give one with --template, by name ({', '.join(path.stem for path in TEMPLATES)}) or as a Jinja "
            "file, or choose a model that has one.",
        )
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def template_text(template: Path) -> str:
    """A chat template that is given by name or file.

    Raises:
        TemplateError: there is none, or it cannot be read.
    """
    file = template_file(template)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"The template {file} cannot be read: {error}.", what_next="Give a Jinja file in UTF-8."
        ) from None


def require_end(tokenizer: Any, source: str) -> None:
    """See that an answer can be finished.

    Raises:
        TemplateError: the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise TemplateError(
            f"The tokenizer of {source} has no EOS token.",
            "Without one, no answer could be told to be finished.",
            "Set eos_token in its tokenizer_config.json to the token that ends an answer.",
        )


def _rendered(tokenizer: Any, messages: Messages) -> str:
    text = _applied(tokenizer, messages, add_generation_prompt=True)
    if _leaves_out_the_user(tokenizer, messages, text):
        raise TemplateError(
            f"The chat template leaves the user's words out of the prompt {_quoted(messages)}.",
            "Templates of models that also see images may want content as a list of parts, and here it is text.",
            _other_template(),
        )
    return text


def _leaves_out_the_user(tokenizer: Any, messages: Messages, text: str) -> bool:
    """Whether the last turn of a user makes no difference to the rendered text."""
    last = max((number for number, turn in enumerate(messages) if turn["role"] == "user"), default=None)
    if last is None or messages[last]["content"].strip() in text:
        return False
    others = [*messages]  # a template may also change what it is given: other words then give another text
    others[last] = {"role": "user", "content": messages[last]["content"] + " ?"}
    return _applied(tokenizer, others, add_generation_prompt=True) == text


def _applied(tokenizer: Any, messages: Messages, **settings: Any) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
    except TemplateSyntaxError as error:
        raise TemplateError(
            f"The chat template is no Jinja: {error.message} (line {error.lineno}).", what_next=_other_template()
        ) from error
    except Exception as error:  # a template is a program, and fails as programs do
        roles = ", ".join(turn["role"] for turn in messages)
        raise TemplateError(
            f"The chat template fails on the prompt {_quoted(messages)}: {error or type(error).__name__}.",
            f"The turns are {roles}; some templates refuse a system message, or turns that do not alternate.",
            f"Leave out what it does not take. {_other_template()}",
        ) from error


def _quoted(messages: Messages) -> str:
    return repr(shorten(str(messages[-1]["content"]) if messages else "", QUOTED))


def _other_template() -> str:
    names = ", ".join(path.stem for path in TEMPLATES)
    return (
        f"Give the policy another one with --template, by name ({names}) or as a Jinja file, or put a "
        "chat_template.jinja into the model's folder."
    )


def _pieces(tokenizer: Any, messages: Messages, text: str) -> Iterator[tuple[str, bool]]:
    """The rendered text, cut at the beginning and the end of each earlier answer, and whether a piece is one."""
    lead, done = "", 0
    for number, turn in enumerate(messages):
        if turn["role"] != "assistant" or number == 0:
            continue
        lead = lead or _lead(tokenizer, str(tokenizer.chat_template))
        before = _rendered(tokenizer, messages[:number])
        said = lead + turn["content"]
        if not (text.startswith(before) and text.startswith(said, len(before))):
            break
        end = len(before) + len(said)
        if tokenizer.eos_token and text.startswith(tokenizer.eos_token, end):
            end += len(tokenizer.eos_token)
        yield text[done : len(before)], False
        yield text[len(before) : end], True
        done = end
    if text[done:]:
        yield text[done:], False


def _answers(starts: list[int], pieces: list[tuple[str, bool]]) -> list[bool]:
    """Which tokens belong to answers, by where each starts in the text."""
    found, position, number = [], 0, 0
    for start in starts:
        while start >= position + len(pieces[number][0]):
            position += len(pieces[number][0])
            number += 1
        found.append(pieces[number][1])
    return found


@lru_cache(maxsize=16)
def _lead(tokenizer: Any, template: str) -> str:
    """The white space that a template puts between the end of a prompt and an answer."""
    asked, said = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
    before = _rendered(tokenizer, [asked])
    after = _applied(tokenizer, [asked, said]).removeprefix(before)
    lead = after[: max(after.find("!"), 0)]
    return lead if lead.isspace() else ""


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
            f"fit into the context of {context}.",
            what_next="Lower generate.max_tokens, shorten or remove the problem, or choose a model with a longer "
            "context.",
        )
