"""Chat templates: which one a policy has, with what options, and what it makes of a conversation. Knows no tokens."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, Self

from jinja2 import Environment, TemplateSyntaxError

from data.errors import AutodidactError

Messages = Sequence[dict[str, str]]
Options = Mapping[str, bool | int | float | str]
TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
QUOTED = 80  # characters of a prompt in an error

_SET = re.compile(r"(?:\{% set \w+ = [^\n]* %\}\n)*")  # as `with_options` writes them


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


def choose_template(tokenizer: Any, template: Path | None, options: Options) -> None:
    """Give a tokenizer the chat template that settings choose; by default it keeps its own.

    Raises:
        TemplateError: there is none of that name, or it has no such option.
    """
    if template:
        tokenizer.chat_template = template_text(template)
    if options and tokenizer.chat_template:
        tokenizer.chat_template = with_options(tokenizer.get_chat_template(), options)


def with_options(template: str, options: Options) -> str:
    """A chat template in which options are set, such as `enable_thinking: false`.

    They become a part of its text. So every program that reads the policy's folder renders alike, vLLM and other
    projects' included, and the template's digest tells its options.

    Raises:
        TemplateError: the template knows no such option.
    """
    known = _names(template) - {"messages", "add_generation_prompt"}
    for name in options:
        if name not in known:
            raise TemplateError(
                f"template_options: the chat template has no option {name!r}.",
                "Templates pass over what they do not know, so it would change nothing.",
                "Correct its name (the template's text has it), or leave it out.",
            )
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in options.items()}
    lines = "".join(f"{{% set {name} = {value} %}}\n" for name, value in values.items())
    after = _SET.match(template).end()  # type: ignore[union-attr]  # of two, Jinja takes the last
    return template[:after] + lines + template[after:]


def _names(template: str) -> set[str]:
    """All names in a template's code, those of its variables among them."""
    try:
        return {value for _, kind, value in Environment(autoescape=False).lex(template) if kind == "name"}
    except TemplateSyntaxError as error:
        raise _no_jinja(error) from error


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


def rendered_prompt(tokenizer: Any, messages: Messages) -> str:
    """The text of a prompt, up to where an answer begins.

    Raises:
        TemplateError: the chat template fails on it, or leaves out what the user says.
    """
    text = rendered(tokenizer, messages, add_generation_prompt=True)
    if _leaves_out_the_user(tokenizer, messages, text):
        raise TemplateError(
            f"The chat template leaves the user's words out of the prompt {_quoted(messages)}.",
            "Templates of models that also see images may want content as a list of parts, and here it is text.",
            other_template(),
        )
    return text


def rendered(tokenizer: Any, messages: Messages, **settings: Any) -> str:
    """What the chat template makes of a conversation.

    Raises:
        TemplateError: it fails on it.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
    except TemplateSyntaxError as error:
        raise _no_jinja(error) from error
    except Exception as error:  # a template is a program, and fails as programs do
        roles = ", ".join(turn["role"] for turn in messages)
        raise TemplateError(
            f"The chat template fails on the prompt {_quoted(messages)}: {error or type(error).__name__}.",
            f"The turns are {roles}; some templates refuse a system message, or turns that do not alternate.",
            f"Leave out what it does not take. {other_template()}",
        ) from error


def _no_jinja(error: TemplateSyntaxError) -> TemplateError:
    return TemplateError(
        f"The chat template is no Jinja: {error.message} (line {error.lineno}).", what_next=other_template()
    )


def other_template() -> str:
    """How to give a policy another template, for an error message."""
    names = ", ".join(path.stem for path in TEMPLATES)
    return (
        f"Give the policy another one with --template, by name ({names}) or as a Jinja file, or put a "
        "chat_template.jinja into the model's folder."
    )


def _leaves_out_the_user(tokenizer: Any, messages: Messages, text: str) -> bool:
    """Whether the last turn of a user makes no difference to the rendered text."""
    last = max((number for number, turn in enumerate(messages) if turn["role"] == "user"), default=None)
    if last is None or messages[last]["content"].strip() in text:
        return False
    others = [*messages]  # a template may also change what it is given: other words then give another text
    others[last] = {"role": "user", "content": messages[last]["content"] + " ?"}
    return rendered(tokenizer, others, add_generation_prompt=True) == text


def _quoted(messages: Messages) -> str:
    return repr(shorten(str(messages[-1]["content"]) if messages else "", QUOTED))
