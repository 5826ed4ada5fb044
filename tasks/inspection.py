"""What a data set is, before anything is done with it: its format, its lengths, and what will be dropped."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from data.formats import Record, Use
from data.reading import Reading, Tally, read_records
from data.render import completion_token_ids, prompt_token_ids
from data.rows import problem_id

SHOWN = 3
DUPLICATE, TOO_LONG = "duplicate", "longer than the context"


@dataclass
class Inspection:
    """What reading a data set came to.

    Attributes:
        use: what its rows were read as.
        shown: the first records, with their places.
        prompts, answers: lengths of all records, in tokens where there is a tokenizer, else in characters; of pairs
            the longer answer counts.
        too_long: records that are longer than the context together with their answer.
    """

    use: Use
    tally: Tally
    shown: list[tuple[str, Record]] = field(default_factory=list)
    records: int = 0
    duplicates: int = 0
    too_long: int = 0
    prompts: "array[int]" = field(default_factory=lambda: array("I"))
    answers: "array[int]" = field(default_factory=lambda: array("I"))

    @property
    def usable(self) -> int:
        return self.records - self.duplicates - self.too_long


def inspect(reading: Reading, use: Use, tokenizer: Any | None = None, context: int | None = None) -> Inspection:
    """Read a data set to its end and measure it. A row that cannot be used is counted, not refused.

    Args:
        tokenizer: a policy's, with a chat template; None to measure characters.
        context: tokens that the policy can attend to.

    Raises:
        DataFileError: a file that cannot be read, or whose format cannot serve as `use`.
    """
    found = Inspection(use, Tally())
    seen: set[int] = set()
    for at, record in read_records(replace(reading, drop=True), use, found.tally):
        found.records += 1
        if len(found.shown) < SHOWN:
            found.shown.append((at, record))
        prompt, answer = _lengths(record, tokenizer)
        found.prompts.append(prompt)
        found.answers.append(answer)
        # A prompt may come again with another pair of answers, but not with another gold answer.
        sides = f"\x1e{record.response}\x1e{record.rejected}" if use == "pairs" else ""
        key = hash(problem_id(record.messages) + sides)
        if key in seen:
            found.duplicates += 1
            found.tally.first.setdefault(DUPLICATE, at)
        elif context is not None and prompt + answer > context:
            found.too_long += 1
            found.tally.first.setdefault(TOO_LONG, at)
        seen.add(key)
    return found


def quantiles(lengths: Sequence[int]) -> tuple[int, int, int, int]:
    """Shortest, median, 95th percentile and longest."""
    values = np.quantile(lengths, (0, 0.5, 0.95, 1), method="nearest")
    return tuple(int(value) for value in values)  # type: ignore[return-value]


def _lengths(record: Record, tokenizer: Any | None) -> tuple[int, int]:
    answers = [answer for answer in (record.response, record.rejected) if answer is not None]
    if tokenizer is None:
        return sum(len(turn["content"]) for turn in record.messages), max(map(len, answers), default=0)
    prompt = len(prompt_token_ids(tokenizer, record.messages))
    return prompt, max((len(completion_token_ids(tokenizer, answer)) for answer in answers), default=0)
