"""What a model is asked and replies, whether it runs here or at an endpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.formats import Message


@dataclass(frozen=True, slots=True)
class Request:
    """What one question says, and the seed of its reply."""

    messages: list[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model replied. `text` is empty if no reply came at all; `failure` then says why."""

    text: str
    failure: str = ""


@dataclass(frozen=True)
class Form:
    """Who is asked, and what a reply is held to.

    Attributes:
        role: what the model is called in messages and progress, such as "judge".
        name: of the form, for an endpoint.
        schema: JSON schema of a reply.
        max_tokens: longest reply.
    """

    role: str
    name: str
    schema: dict[str, Any]
    max_tokens: int


# Answers requests in the order given.
Ask = Callable[[Sequence[Request]], list[Reply]]
