"""Requests to a model and its replies, whether it runs here or at an endpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.formats import Message


@dataclass(frozen=True, slots=True)
class Request:
    """One question, and the seed of its reply."""

    messages: list[Message]
    seed: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply. If none came, `text` is empty and `failure` is the reason."""

    text: str
    failure: str = ""


@dataclass(frozen=True)
class Form:
    """Who is asked, and the format of replies.

    Attributes:
        role: the model's name in messages and progress, such as "judge".
        name: the schema's name, for an endpoint.
        schema: JSON schema of a reply.
        max_tokens: longest reply, in tokens.
        top_p: nucleus sampling.
    """

    role: str
    name: str
    schema: dict[str, Any]
    max_tokens: int
    top_p: float = 1.0


# Answers requests in order.
Ask = Callable[[Sequence[Request]], list[Reply]]
