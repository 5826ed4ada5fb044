"""Chat templates: which one a policy has, with what options, and how it renders a conversation. No tokens here."""

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
    """The chat template is missing or cannot do what is asked."""

    def at(self, place: str) -> Self:
        """The same error, naming the row that cannot be rendered."""
        return type(self)(f"{place}: {self.what}", self.why, self.what_next)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Add `place`, such as "FILE, line 3", to errors raised while rendering rows inside.

    Raises:
        TemplateError: with that place.
    """
    try:
        yield
    except TemplateError as error:
        raise error.at(place) from error


def template_file(template: Path) -> Path:
    """The file of a chat template that is given by name or as a file.

    Raises:
        TemplateError: neither exists; the message lists the known names.
    """
    known = {path.stem: path for path in TEMPLATES}
    path = template if template.is_file() else known.get(str(template))
    if path is None:
        raise TemplateError(
            f"There is no template {template}: no file of that path (relative to {Path.cwd()}) and no known name.",
            what_next=f"Known names are {', '.join(known)}.",
        )
    return path


def template_text(template: Path) -> str:
    """The text of a chat template that is given by name or as a file.

    Raises:
        TemplateError: it does not exist or cannot be read.
    """
    file = template_file(template)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(
            f"The template {file} cannot be read: {error}.", what_next="Give a Jinja file in UTF-8."
        ) from None


def choose_template(tokenizer: Any, template: Path | None, options: Options) -> None:
    """Set a tokenizer's chat template from the settings; by default the tokenizer keeps its own.

    Raises:
        TemplateError: there is no template of that name, or it has no such option.
    """
    if template:
        tokenizer.chat_template = template_text(template)
    if options and tokenizer.chat_template:
        tokenizer.chat_template = with_options(tokenizer.get_chat_template(), options)


def with_options(template: str, options: Options) -> str:
    """Return the chat template with options set, such as `enable_thinking: false`.

    The options become part of the template's text, so every program that reads the policy's folder renders the same way
    (including vLLM and other projects), and the template's digest covers the options.

    Raises:
        TemplateError: the template has no such option.
    """
    known = _names(template) - {"messages", "add_generation_prompt"}
    for name in options:
        if name not in known:
            raise TemplateError(
                f"template_options: the chat template has no option {name!r}.",
                "Templates ignore options they do not know, so it would change nothing.",
                "Correct the name (the template's text shows it), or remove the option.",
            )
    values = {name: json.dumps(value, ensure_ascii=False) for name, value in options.items()}
    lines = "".join(f"{{% set {name} = {value} %}}\n" for name, value in values.items())
    after = _SET.match(template).end()  # type: ignore[union-attr]  # Jinja takes the last of two
    return template[:after] + lines + template[after:]


def _names(template: str) -> set[str]:
    """All names in a template's code, including its variables."""
    try:
        return {value for _, kind, value in Environment(autoescape=False).lex(template) if kind == "name"}
    except TemplateSyntaxError as error:
        raise _no_jinja(error) from error


def require_template(tokenizer: Any, source: str) -> str:
    """Digest of the tokenizer's chat template, part of the identity of everything rendered with it.

    Raises:
        TemplateError: the tokenizer has no chat template.
    """
    if not tokenizer.chat_template:
        raise TemplateError(
            f"The tokenizer of {source} has no chat template, so prompts cannot be rendered.",
            what_next=f"Set one with --template, by name ({', '.join(path.stem for path in TEMPLATES)}) or as a Jinja "
            "file, or choose a model that has one.",
        )
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


def rendered_prompt(tokenizer: Any, messages: Messages) -> str:
    """The text of a prompt, up to where an answer begins.

    Raises:
        TemplateError: the chat template fails, or leaves out the user's message.
    """
    text = rendered(tokenizer, messages, add_generation_prompt=True)
    if _leaves_out_the_user(tokenizer, messages, text):
        raise TemplateError(
            f"The chat template leaves the user's message out of the prompt {_quoted(messages)}.",
            "Templates of multimodal models may expect content as a list of parts; here it is text.",
            other_template(),
        )
    return text


def rendered(tokenizer: Any, messages: Messages, **settings: Any) -> str:
    """Render a conversation with the chat template.

    Raises:
        TemplateError: the template fails.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **settings))
    except TemplateSyntaxError as error:
        raise _no_jinja(error) from error
    except Exception as error:  # a template is a program and can raise anything
        roles = ", ".join(turn["role"] for turn in messages)
        raise TemplateError(
            f"The chat template fails on the prompt {_quoted(messages)}: {error or type(error).__name__}.",
            f"The turns are {roles}; some templates reject system messages or turns that do not alternate.",
            f"Remove what it does not support. {other_template()}",
        ) from error


def _no_jinja(error: TemplateSyntaxError) -> TemplateError:
    return TemplateError(
        f"The chat template is not valid Jinja: {error.message} (line {error.lineno}).", what_next=other_template()
    )


def other_template() -> str:
    """Advice for error messages: how to give a policy another template."""
    names = ", ".join(path.stem for path in TEMPLATES)
    return (
        f"Set another one with --template, by name ({names}) or as a Jinja file, or put a "
        "chat_template.jinja into the model's folder."
    )


def _leaves_out_the_user(tokenizer: Any, messages: Messages, text: str) -> bool:
    """Whether the user's last turn makes no difference to the rendered text."""
    last = max((number for number, turn in enumerate(messages) if turn["role"] == "user"), default=None)
    if last is None or messages[last]["content"].strip() in text:
        return False
    others = [*messages]  # a template may transform the content; different content still renders differently
    others[last] = {"role": "user", "content": messages[last]["content"] + " ?"}
    return rendered(tokenizer, others, add_generation_prompt=True) == text


def _quoted(messages: Messages) -> str:
    return repr(shorten(str(messages[-1]["content"]) if messages else "", QUOTED))
