"""The protocol that every engine keeps: requests in, answers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models.config import ModelCode
from models.engine.meter import Meter


@dataclass(frozen=True)
class Request:
    """A prompt, and how it is answered.

    Attributes:
        prompt: token ids.
        samples: how many answers are drawn.
        temperature: 0 is greedy.
        top_k: sample from this many most likely tokens; 0 is all.
        seed: of the first answer; every further one has the next. None: greedy.
        stop: ids of the tokens that end an answer, besides those that generation_config.json names. The one that it
            ends at is the last of its ids, and left out of its text.
        schema: JSON schema that an answer is held to while it is decoded, for an engine that was started so.
    """

    prompt: list[int]
    samples: int
    temperature: float
    max_tokens: int
    seed: int | None
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[int, ...] = ()
    schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Completion:
    """One answer. `finish_reason` is "stop" if it ended by itself, "length" if it was cut off."""

    text: str
    token_ids: list[int]
    finish_reason: str


class Engine(Protocol):
    """A policy that is ready to answer."""

    def answer(self, requests: Sequence[Request], meter: Meter | None = None) -> list[list[Completion]]:
        """The answers to each request, in the order given, all in one continuous batch."""
        ...


@dataclass(frozen=True)
class Served:
    """What an engine is started with.

    Attributes:
        policy: folder of the model and its tokenizer.
        dtype: number format of the weights.
        context: longest prompt and answer together, in tokens.
        seed: of the engine; requests have their own.
        code: whether Python code in the folder may run.
        held_to_schemas: whether requests have one.
    """

    policy: Path
    dtype: str
    context: int
    seed: int
    code: ModelCode = "refuse"
    held_to_schemas: bool = False
