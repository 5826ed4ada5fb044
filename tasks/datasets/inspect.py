"""Inspecting a data set before use: its format, its lengths, and what will be dropped."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from data.chat_template import naming
from data.formats import Record, Use
from data.formats.record import user
from data.prepare.overlap import NEAR_DUPLICATE
from data.prepare.problems import AS_TEXT, NO_FINAL_ANSWER
from data.prepare.reading import Reading, Tally, read_records
from data.prepare.similar import NearDuplicates, prompt_of, scratch_database
from data.prepare.splits import DUPLICATE
from data.render import completion_token_ids, finished_token_ids, prompt_token_ids
from data.rewards.answer import has_answer
from data.rewards.final_answer import close as close_math_worker
from data.rewards.final_answer import compared_as_text
from data.rows import problem_id
from models.config import CodeSetting, ModelName, ReasoningSetting, RevisionSetting, TemplateOptions
from models.config_base import Config

SHOWN = 3
LEARNED: tuple[Use, ...] = ("demonstrations", "pairs")  # uses whose answers the policy learns
TOO_LONG = "longer than the context"


class InspectConfig(Config):
    """Settings of `autodidact data inspect`, which reads a data set as a loop does."""

    data: Annotated[
        Path, Field(description="A file, a folder[:name][:split], or owner/name[:config][:split] on the hub.")
    ]
    use: Annotated[Use | None, Field(description="What the rows are used as. Default: the format's first use.")] = None
    model: Annotated[
        ModelName | None, Field(description="Path or hub id of a model, to show rows and lengths as it sees them.")
    ] = None
    template: Annotated[Path | None, Field(description="Chat template, by name or file. Default: the model's.")] = None
    template_options: TemplateOptions
    model_code: CodeSetting = "refuse"
    model_revision: RevisionSetting = None
    format: Annotated[str | None, Field(description="Format, by name. Default: recognized by the columns.")] = None
    columns: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="Column names: from the format's name to the file's."),
    ]
    placeholders: Annotated[
        dict[str, str], Field(default_factory=dict, description="Values of placeholders, as in {name: Ada}.")
    ]
    reasoning: ReasoningSetting = "leave"


@dataclass
class Inspection:
    """The result of inspecting a data set.

    Attributes:
        use: what its rows were read as.
        shown: the first records, with their places.
        prompts, answers: lengths of all records, in tokens if there is a tokenizer, otherwise in characters; for
            pairs, of the longer answer.
        left_out: records that a loop would leave out, by reason.
    """

    use: Use
    tally: Tally
    shown: list[tuple[str, Record]] = field(default_factory=list)
    records: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    prompts: "array[int]" = field(default_factory=lambda: array("I"))
    answers: "array[int]" = field(default_factory=lambda: array("I"))

    @property
    def usable(self) -> int:
        return self.records - self.left_out.total()


def inspect(
    reading: Reading,
    use: Use,
    tokenizer: Any | None = None,
    context: int | None = None,
    near_duplicates: float | None = None,
) -> Inspection:
    """Read a complete data set and measure it. An unusable row is counted, not refused.

    Args:
        tokenizer: a policy's, with a chat template; None to measure characters.
        context: the policy's context length, in tokens.
        near_duplicates: similarity from which two prompts count as the same; None to not compare them.

    Raises:
        DataFileError: a file cannot be read, or its format does not fit `use`.
    """
    found = Inspection(use, Tally())
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        seen = stack.enter_context(closing(scratch_database(scratch / "seen.sqlite")))
        seen.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")
        near = None
        if near_duplicates is not None and use != "pairs":  # a prompt may recur with another pair of answers
            near = stack.enter_context(closing(NearDuplicates(scratch / "near.sqlite", near_duplicates)))
        for at, record in read_records(replace(reading, drop=True), use, found.tally):
            found.records += 1
            if len(found.shown) < SHOWN:
                found.shown.append((at, record))
            with naming(at):
                prompt, answer = _lengths(
                    record, tokenizer, completion_token_ids if use in LEARNED else finished_token_ids
                )
            found.prompts.append(prompt)
            found.answers.append(answer)
            key = problem_id(record.messages or [user(record.response or "")])  # for a passage, its text
            if use == "pairs":
                key += hashlib.sha256(f"{record.response}\x1e{record.rejected}".encode()).hexdigest()
            reason = None
            if not seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
                reason = DUPLICATE
            elif use == "problems" and not has_answer(record.reference or record.response or ""):
                reason = NO_FINAL_ANSWER
            elif near and near.add(key, prompt_of(record.messages)):
                reason = NEAR_DUPLICATE
            elif context is not None and prompt + answer > context:
                reason = TOO_LONG
            elif use == "problems" and compared_as_text(record.reference or record.response):
                found.tally.notice(AS_TEXT, at)
            if reason:
                found.left_out[reason] += 1
                found.tally.first.setdefault(reason, at)
    close_math_worker()
    return found


def quantiles(lengths: Sequence[int]) -> tuple[int, int, int, int]:
    """Shortest, median, 95th percentile and longest."""
    values = np.quantile(lengths, (0, 0.5, 0.95, 1), method="nearest")
    return tuple(int(value) for value in values)  # type: ignore[return-value]


def _lengths(record: Record, tokenizer: Any | None, render: Callable[[Any, str], list[int]]) -> tuple[int, int]:
    answers = [answer for answer in (record.response, record.rejected) if answer is not None]
    if tokenizer is None:
        return sum(len(turn["content"]) for turn in record.messages), max(map(len, answers), default=0)
    prompt = len(prompt_token_ids(tokenizer, record.messages)) if record.messages else 0
    return prompt, max((len(render(tokenizer, answer)) for answer in answers), default=0)
