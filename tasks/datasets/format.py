"""A data set as the project's own rows: split, deduplicated, and separated from held-out data."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from data.errors import AutodidactError
from data.files import write_json
from data.formats import Use
from data.prepare.overlap import Repeated
from data.prepare.prepare import prepare, read_held_out, read_prompts
from data.prepare.reading import Tally, first_use
from data.prepare.splits import HELD_OUT, write_splits
from data.prepare.written_prompts import PromptReply
from data.rows import SPLITS, Problem
from data.storage import count_by, read_rows, write_rows
from models.config import EngineConfig, WritePromptsConfig
from tasks.datasets.inputs import files_noted
from tasks.datasets.pairs import PAIRS_FILE, write_pairs
from tasks.datasets.passages import WrittenPrompts, prompts_written
from tasks.datasets.problems import DATA, ProblemSource, note_further

# With an underscore, so that the folder can be read as a data set.
SUMMARY, REPLIES_FILE = "_summary.json", "_replies.parquet"


class FormatConfig(ProblemSource):
    """Settings of `autodidact data format`: how data sets are read, as in a loop, and where the rows go."""

    leading_settings: ClassVar[tuple[str, ...]] = (
        "problems",
        "output",
        "use",
        "validation",
        "test",
        "format",
        "columns",
        "mixture",
        "limit",
        "unusable",
        "reasoning",
        "placeholders",
        "overlap.held_out",
        "overlap.near_duplicates",
        "overlap.contaminated",
        "write_prompts.model",
        "write_prompts.endpoint",
        "seed",
    )

    problems: Annotated[Path, Field(description="Data set to format, in any known format.")]
    output: Annotated[Path, Field(description="New folder for the rows.")] = Path("formatted")
    use: Annotated[Use | None, Field(description="What the rows are used as. Default: the format's first use.")] = None
    seed: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="Seed for drawing from a mixture and for written prompts.")
    ] = 0
    write_prompts: Annotated[
        WritePromptsConfig | None, Field(description="Let a model write prompts for texts that have none.")
    ] = None
    engine: Annotated[EngineConfig, Field(description="How vLLM runs if that model is local. Changes no result.")] = (
        EngineConfig()
    )

    @model_validator(mode="after")
    def _leave_prompts_alone(self) -> Self:
        for name, given in (
            ("few_shot", self.few_shot),
            ("system", self.system),
            ("long_prompts", self.long_prompts != "refuse"),
        ):
            if given:
                raise ValueError(f"{name} depends on the policy, so it is a setting of the loop. Leave it out here.")
        return self


@dataclass(frozen=True)
class Formatted:
    """The result of formatting.

    Attributes:
        kept: rows in each file, by source.
        dropped: rows left out, by reason.
        contaminated: training prompts that repeat held-out ones, left out or not.
        repeated: the first near-duplicates and contaminated prompts.
        prompts: the model that wrote the prompts of passages, and its instruction; None if there were no passages.
    """

    use: Use
    tally: Tally
    kept: dict[str, Counter[str]]
    dropped: Counter[str]
    contaminated: int
    repeated: list[Repeated]
    prompts: dict[str, Any] | None = None

    @property
    def rows(self) -> int:
        return sum(counts.total() for counts in self.kept.values())


class OutputError(AutodidactError):
    """The output folder is not empty, or a setting does not apply to the rows."""


def format_data(config: FormatConfig) -> Formatted:
    """Write the rows of a data set as Parquet files into `config.output`: one per split, or `pairs.parquet`.

    `_summary.json` next to them has all counts and notices. Passages become demonstrations with prompts that a model
    writes; its replies are in `_replies.parquet`.

    Raises:
        OutputError: the folder is not empty, or a setting does not apply to the rows.
        DataFileError: a data set is unusable.
        AskedModelError, ModelError, TemplateError, RunFailedError: see `tasks.datasets.passages.prompts_written`.
    """
    output = config.output.absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(
            f"{config.output} already exists and is not empty.",
            what_next="Remove it, or choose another --output.",
        )
    use = config.use or first_use(config.reading(config.problems))
    if use == "pairs" and (useless := [name for name, given in _of_problems(config).items() if given]):
        raise OutputError(
            f"{', '.join(useless)}: mixtures and limits do not apply to pairs.", what_next="Leave it out."
        )
    if config.write_prompts is not None:
        _check_passages(config, use)
        reading = config.reading(config.problems)
        with prompts_written(reading, config.write_prompts, config.engine, config.seed, output) as written:
            return _write(output, lambda folder: _format_passages(config, written, folder))
    if use == "pairs":
        return _write(output, lambda folder: _format_pairs(config, folder))
    return _write(output, lambda folder: _format_problems(config, use, folder))


def _check_passages(config: FormatConfig, use: Use) -> None:
    """Refuse data that prompts cannot be written for.

    Raises:
        OutputError: the rows, or other given data sets, already have prompts.
    """
    if use != "passages":
        raise OutputError(
            f"write_prompts: the rows of {config.problems} are read as {use}, which already have prompts.",
            what_next="Leave it out, or set format: passages and name the column of the texts, as in columns: "
            "{text: body}.",
        )
    given = {**_of_problems(config), "validation": config.validation, "test": config.test, "transfer": config.transfer}
    if useless := [name for name in ("mixture", "validation", "test", "transfer") if given[name]]:
        raise OutputError(
            f"{', '.join(useless)}: with write_prompts, only passages are read.",
            what_next="Give these to the loop. Data that the prompts must not repeat goes into overlap.held_out.",
        )


def _write(output: Path, work: Callable[[Path], Formatted]) -> Formatted:
    """Let `work` write into a folder, which becomes the output once it is complete."""
    partial = output.with_name(f".{output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        found = work(partial)
        (partial / DATA).unlink(missing_ok=True)
        (partial / f"{HELD_OUT}.parquet").unlink(missing_ok=True)
        write_json(partial / SUMMARY, _summary(found))
        partial.replace(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _of_problems(config: FormatConfig) -> dict[str, object]:
    limits = {f"limit_{split}".removesuffix("_train"): limit for split, limit in config.limits().items()}
    return {"mixture": config.mixture, **limits}


def _format_problems(config: FormatConfig, use: Use, folder: Path) -> Formatted:
    told = replace(config.preparation(config.seed, use), rules=config.overlap.rules)
    tally, found = prepare(told, folder, note_further)
    kept: dict[str, Counter[str]] = {split: found.sources[split] for split in SPLITS if found.sources[split]}
    return Formatted(use, tally, kept, tally.dropped + found.dropped, found.contaminated, found.repeated)


def _format_pairs(config: FormatConfig, folder: Path) -> Formatted:
    held_out = folder / f"{HELD_OUT}.parquet"
    write_rows(Problem, held_out, read_held_out(config.preparation(config.seed, "pairs"), note_further))
    reading, rules = config.reading(config.problems), config.overlap.rules
    tally, left_out = write_pairs(reading, folder, {HELD_OUT: held_out}, rules, lambda _: True)
    notes = json.loads((folder / DATA).read_text())
    repeated = [Repeated(**shown) for shown in notes["repeated"]]
    kept = count_by(folder / PAIRS_FILE, "chosen_source")
    return Formatted("pairs", tally, {"pairs": kept}, tally.dropped + left_out, notes["contaminated"], repeated)


def _format_passages(config: FormatConfig, written: WrittenPrompts, folder: Path) -> Formatted:
    rules, limits, seed = config.overlap.rules, config.limits(), config.seed
    further = (
        p for one in config.preparation(seed, "demonstrations").further for p in read_prompts(one, None, note_further)
    )
    found = write_splits(written.demonstrations(), further, folder, rules, limits, {}, seed, _as_it_is)
    write_rows(PromptReply, folder / REPLIES_FILE, read_rows(PromptReply, written.replies))
    kept: dict[str, Counter[str]] = {split: found.sources[split] for split in SPLITS if found.sources[split]}
    dropped = written.tally.dropped + found.dropped
    counts = found.contaminated, found.repeated
    return Formatted("passages", written.tally, kept, dropped, *counts, prompts=written.told)


def _as_it_is(problem: Problem) -> Problem:
    return problem


def _summary(found: Formatted) -> dict[str, object]:
    return {
        "use": found.use,
        "formats": found.tally.formats,
        "rows": found.tally.rows,
        "kept": {name: dict(counts) for name, counts in found.kept.items()},
        "dropped": dict(found.dropped),
        "hidden_characters": found.tally.hidden,
        "noticed": dict(found.tally.noticed),
        "contaminated": found.contaminated,
        "repeated": [asdict(shown) for shown in found.repeated],
        **files_noted(found.tally.files),
        **({"prompts": found.prompts} if found.prompts else {}),
    }
