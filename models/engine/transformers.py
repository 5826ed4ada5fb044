"""The engine Transformers, for policies that vLLM does not serve: in batches, with a cache, and slower.

Requests of one shard are answered together, in their order, so that the bytes of a shard do not depend on which other
shards there are. Each answer is drawn with its own seed.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from data.render import pad_token_id
from models.adapters.kinds import set_beside
from models.adapters.settings import BESIDE
from models.config import EngineConfig
from models.engine.constrained import Constraint, Schemas
from models.engine.meter import Meter
from models.engine.protocol import Completion, Request, Served
from models.loading import load_tokenizer, load_weights

NEVER = float("-inf")
MOST_ROWS = 64  # answered together: the cache holds all of them, at full length


class Transformers:
    """A policy in this process."""

    def __init__(self, served: Served, config: EngineConfig) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else "cpu"
        self._tokenizer = load_tokenizer(served.policy, served.code)
        self._padding = pad_token_id(self._tokenizer)
        model = load_weights("AutoModelForCausalLM", served.policy, served.code, dtype=served.dtype)
        self._model, self._kind = model.to(self._device).eval(), served.adapter
        self._rows = min(config.max_num_seqs, MOST_ROWS)
        self._held: Schemas | None = None
        self._mask: Any = None  # of all tokens so far
        ends = model.generation_config.eos_token_id
        self._ends = {ends} if isinstance(ends, int) else set(ends or ())

    def stream(
        self, requests: Iterable[Request | None], meter: Meter | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answer requests in batches; see the protocol."""
        batch: list[tuple[int, Request]] = []
        for number, request in _numbered(requests):
            if batch and (request is None or not self._fits(request, [one for _, one in batch])):
                yield from self._answered(batch, meter)
                batch = []
            if request is not None:
                batch.append((number, request))
        yield from self._answered(batch, meter)

    def likelihoods(self, texts: Sequence[tuple[list[int], list[int]]], meter: Meter | None = None) -> list[float]:
        """Return the log-probability of each continuation after its prompt; see the protocol."""
        found = []
        for prompt, continuation in texts:
            logits = self._forward([prompt + continuation], None, keep=len(continuation) + 1).logits[0, :-1].float()
            ids = torch.tensor(continuation, device=logits.device)
            found.append(float(logits.log_softmax(-1).gather(1, ids[:, None]).sum()))
            if meter:
                meter.add(1, len(continuation))
        return found

    def load(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Answer with these weights from now on; see the protocol."""
        own, beside = self._model.state_dict(), {}
        with torch.no_grad():
            for name, tensor in weights:
                if name.startswith(BESIDE):
                    beside[name.removeprefix(BESIDE)] = tensor.detach().to(self._device)
                else:
                    place = own[name] if name in own else own[_inside(name)]
                    place.copy_(tensor)
        if beside:
            assert self._kind is not None
            set_beside(self._model, self._kind, beside)

    def sleep(self) -> None:
        """Give a GPU's memory back; see the protocol."""
        self._model.to("cpu")

    def wake(self) -> None:
        """Be ready for `load` again."""
        self._model.to(self._device)

    def _fits(self, request: Request, batch: list[Request]) -> bool:
        rows = sum(one.samples for one in batch)
        return rows + request.samples <= self._rows and request.together == batch[-1].together

    def _answered(
        self, batch: list[tuple[int, Request]], meter: Meter | None
    ) -> Iterator[tuple[int, list[Completion]]]:
        rows = [
            _Row(request, number, self._constraint(request))
            for _, request in batch
            for number in range(request.samples)
        ]
        self._decode(rows)
        answers = iter(rows)
        for number, request in batch:
            drawn = [self._completion(next(answers)) for _ in range(request.samples)]
            if meter:
                meter.add(len(drawn), sum(len(answer.token_ids) for answer in drawn))
            yield number, drawn

    def _decode(self, rows: list["_Row"]) -> None:
        """Draw the answers of all rows together, until each has ended."""
        cache = None
        given = [row.request.prompt for row in rows]
        while rows:
            output = self._forward(given, cache, keep=1)
            cache = output.past_key_values
            for row, scores in zip(rows, output.logits[:, -1].float(), strict=True):
                row.take(scores, self._ends)
            left = [number for number, row in enumerate(rows) if not row.finish_reason]
            if len(left) < len(rows):
                rows = [rows[number] for number in left]
                chosen = torch.tensor(left, dtype=torch.long, device=self._device)
                self._mask = self._mask[chosen]
                if rows:
                    cache.batch_select_indices(chosen)
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(rows), 1)], dim=1)
            given = [[row.ids[-1]] for row in rows]

    def _forward(self, given: list[list[int]], cache: Any, keep: int) -> Any:
        """The model's output for the next tokens of some sequences, whose ends are aligned.

        Args:
            keep: how many of the last tokens' logits to compute.
        """
        longest = max(map(len, given))
        ids = torch.tensor([[self._padding] * (longest - len(one)) + one for one in given], device=self._device)
        if cache is None:
            told = [[0] * (longest - len(one)) + [1] * len(one) for one in given]
            self._mask = torch.tensor(told, device=self._device)
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)[:, -longest:]
        with torch.no_grad():
            return self._model(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep,
            )

    def _constraint(self, request: Request) -> Constraint | None:
        if request.schema is None:
            return None
        if self._held is None:
            self._held = Schemas(self._tokenizer, self._model.config.get_text_config().vocab_size)
        return self._held.begin(request.schema)

    def _completion(self, row: "_Row") -> Completion:
        text = self._tokenizer.decode(row.ids[:-1] if row.has_end else row.ids, skip_special_tokens=True)
        return Completion(text, row.ids, row.finish_reason, row.log_probs)


class _Row:
    """An answer that is being drawn."""

    def __init__(self, request: Request, number: int, constraint: Constraint | None) -> None:
        self.request, self._constraint = request, constraint
        self.ids: list[int] = []
        self.log_probs: list[float] = []
        self.finish_reason, self.has_end = "", False
        self._random = None if request.seed is None else torch.Generator().manual_seed(request.seed + number)

    def take(self, scores: torch.Tensor, ends: set[int]) -> None:
        """Draw the next token, from the scores of all tokens."""
        request = self.request
        scores = scores.cpu()
        if self._constraint:
            scores = scores.masked_fill(~self._constraint.allowed(len(scores)), NEVER)
        log_probs = processed(scores, request.temperature, request.top_k, request.top_p).log_softmax(-1)
        if request.temperature == 0:
            token = int(scores.argmax())
        else:
            token = int(torch.multinomial(log_probs.exp(), 1, generator=self._random))
        self.ids.append(token)
        if request.log_probs:
            self.log_probs.append(float(log_probs[token]))
        over = self._constraint is not None and self._constraint.accept(token)
        self.has_end = token in ends or token in request.stop
        if self.has_end or over:
            self.finish_reason = "stop"
        elif len(self.ids) >= request.max_tokens:
            self.finish_reason = "length"


def processed(scores: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """The scores of the distribution that is drawn from, as vLLM processes them: temperature, then top-k, then top-p.

    Args:
        scores: of all tokens, shape (vocabulary,).
        top_k: keep so many; 0: all.
        top_p: keep the most likely tokens that together have this probability.
    """
    if temperature > 0:
        scores = scores / temperature
    if 0 < top_k < len(scores):
        scores = scores.masked_fill(scores < scores.topk(top_k).values[-1], NEVER)
    if top_p < 1:
        ordered, places = scores.sort()
        low = ordered.softmax(-1).cumsum(-1) <= 1 - top_p
        low[-1] = False
        scores = scores.masked_fill(torch.zeros_like(low).scatter(0, places, low), NEVER)
    return scores


def _numbered(requests: Iterable[Request | None]) -> Iterator[tuple[int, Request | None]]:
    """Requests with their numbers; None has the next one's."""
    number = 0
    for request in requests:
        yield number, request
        number += request is not None


def _inside(name: str) -> str:
    """The name of a weight that an adapter has been put around."""
    module, _, kind = name.rpartition(".")
    return f"{module}.base_layer.{kind}"
