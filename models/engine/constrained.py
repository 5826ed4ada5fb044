"""Answers held to a JSON schema, token by token: with the library that vLLM uses for it, and without whitespace."""

from typing import Any

import numpy as np
import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer


class Constraint:
    """What may come next in one answer."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Which tokens may come next, shape (vocabulary,)."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        found = np.zeros(vocabulary, dtype=bool)
        found[: len(bits)] = bits[:vocabulary]
        return torch.from_numpy(found)

    def accept(self, token: int) -> bool:
        """Note the next token; return whether the answer is over with it."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


class Schemas:
    """Constraints for a tokenizer."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary)

    def begin(self, schema: dict[str, Any]) -> Constraint:
        """What may come in an answer of that schema."""
        grammar = LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_flexible": False})
        return Constraint(LLMatcher(self._tokenizer, grammar))
