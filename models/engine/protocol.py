"""The protocol that every engine implements: requests in, answers out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from models.adapters.settings import Kind
from models.config import ModelCode
from models.engine.meter import Meter


@dataclass(frozen=True)
class Request:
    """A prompt, and how to answer it.

    Attributes:
        prompt: token ids.
        samples: number of answers to draw.
        temperature: 0 is greedy.
        top_k: sample from the k most likely tokens; 0: from all.
        seed: of the first answer; each further answer has the next. None: greedy.
        stop: ids of tokens that end an answer, besides those in generation_config.json. The one that ends it is the
            last of its ids, and left out of its text.
        schema: JSON schema that constrains decoding, for an engine started with `held_to_schemas`.
        log_probs: also return each token's log-probability in the distribution that it is drawn from.
        together: requests that have this in common may be answered in one batch, by an engine that has batches.
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
    log_probs: bool = False
    together: str = ""


@dataclass(frozen=True)
class Completion:
    """One answer. `finish_reason` is "stop" if it ended on its own, "length" if it was truncated.

    `log_probs` are those of `token_ids`, if the request asked for them.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    log_probs: list[float] = field(default_factory=list)


class Engine(Protocol):
    """A policy that is ready to answer."""

    def stream(
        self, requests: Iterable[Request | None], meter: Meter | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answer requests in one continuous batch: the next are taken as soon as there is room for them.

        Args:
            requests: None instead of a request means that the next is not known yet, while others are being answered.

        Yields:
            The number of a request, from 0, and its answers, in the order in which requests are finished.
        """
        ...

    def likelihoods(self, texts: Sequence[tuple[list[int], list[int]]], meter: Meter | None = None) -> list[float]:
        """Return the log-probability of each continuation after its prompt, both as token ids, summed over tokens."""
        ...

    def load(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Answer with these weights from now on: every name of the policy's checkpoint, and its tensor.

        Tensors of an adapter that is not merged have names that begin with `BESIDE`.
        """
        ...

    def sleep(self) -> None:
        """Give memory back until `wake`, so that a trainer beside the engine can use it. Weights are lost."""
        ...

    def wake(self) -> None:
        """Be ready for `load` again."""
        ...


def answers_in_order(engine: Engine, requests: Sequence[Request], meter: Meter | None = None) -> list[list[Completion]]:
    """Return the answers to each request, in order."""
    finished = dict(engine.stream(requests, meter))
    return [finished[number] for number in range(len(requests))]


@dataclass(frozen=True)
class Served:
    """What an engine serves.

    Attributes:
        policy: folder of the model and its tokenizer.
        dtype: number format of the weights.
        context: most tokens of a prompt with its answer.
        seed: the engine's seed; requests have their own.
        code: whether Python code in the folder may run.
        held_to_schemas: whether requests have a schema.
        beside_a_trainer: whether it answers inside a training program, and gets new weights.
        read: whether `likelihoods` is called.
        adapter: kind of the adapter that stays beside the weights. Beside a trainer, the folder does not tell it.
        virtual_tokens: of the adapter, in front of every prompt; not counted in `context`.
    """

    policy: Path
    dtype: str
    context: int
    seed: int
    code: ModelCode = "refuse"
    held_to_schemas: bool = False
    beside_a_trainer: bool = False
    read: bool = False
    adapter: Kind | None = None
    virtual_tokens: int = 0
