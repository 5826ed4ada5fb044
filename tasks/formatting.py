"""A data set as the project's own rows: split, without duplicates, and apart from what is held out."""

import shutil
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from data.formats import Use
from data.overlap import Overlaps, Repeated
from data.preferences import read_pairs
from data.reading import Tally, first_use
from data.rows import Pair, Problem
from data.splits import SPLITS
from data.storage import write_rows
from tasks.files import write_json
from tasks.problems import ProblemSource, read_held_out, split_problems

# With an underscore, so that the folder can be read as a data set.
SUMMARY, SHOWN = "_summary.json", "_overlaps.json"


class FormatConfig(ProblemSource):
    """Settings of `autodidact data format`: those by which a loop reads its data sets, and where the rows go."""

    problems: Annotated[Path, Field(description="Data set to be formatted, in any known format.")]
    output: Annotated[Path, Field(description="New folder for the rows.")] = Path("formatted")
    use: Annotated[Use | None, Field(description="What the rows are to serve as; none: the format's first use.")] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the draw from a mixture.")] = 0

    @model_validator(mode="after")
    def _leave_prompts_alone(self) -> Self:
        for name, given in (
            ("few_shot", self.few_shot),
            ("system", self.system),
            ("long_prompts", self.long_prompts != "refuse"),
        ):
            if given:
                raise ValueError(
                    f"{name}: this depends on the policy, so it is a setting of the loop. Leave it out here."
                )
        return self


@dataclass(frozen=True)
class Formatted:
    """What formatting came to.

    Attributes:
        kept: rows of each file, by source.
        dropped: rows left out, by reason.
        repeated: the first near-duplicates and contaminated prompts.
    """

    use: Use
    tally: Tally
    kept: dict[str, Counter[str]]
    dropped: Counter[str]
    repeated: list[Repeated]


class OutputError(ValueError):
    """The folder for the rows holds something already."""


def format_data(config: FormatConfig) -> Formatted:
    """Write the rows of a data set as Parquet files into `config.output`: one per split, or `pairs.parquet`.

    Beside them lie `_summary.json`, with all counts, and `_overlaps.json`, if there is anything to show.

    Raises:
        OutputError: the folder is not empty.
        DataFileError: a data set that cannot be used.
    """
    if config.output.exists() and (not config.output.is_dir() or any(config.output.iterdir())):
        raise OutputError(f"{config.output} is there already and not empty. Remove it, or choose another --output.")
    use = config.use or first_use(config.reading(config.problems))
    partial = config.output.with_name(f".{config.output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        found = _format_pairs(config, partial) if use == "pairs" else _format_problems(config, use, partial)
        write_json(partial / SUMMARY, _summary(found))
        if found.repeated:
            write_json(partial / SHOWN, [asdict(shown) for shown in found.repeated])
        partial.replace(config.output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _format_problems(config: FormatConfig, use: Use, folder: Path) -> Formatted:
    tally, found = split_problems(config, config.seed, folder, config.overlap.rules, lambda problem, _: problem, use)
    kept: dict[str, Counter[str]] = {split: found.sources[split] for split in SPLITS if found.sources[split]}
    return Formatted(use, tally, kept, tally.dropped + found.dropped, found.repeated)


def _format_pairs(config: FormatConfig, folder: Path) -> Formatted:
    tally, dropped, scratch = Tally(), Counter[str](), folder / ".scratch"
    scratch.mkdir()
    held_out = scratch / "held_out.parquet"
    write_rows(Problem, held_out, read_held_out(config, Tally()))
    with closing(Overlaps(config.overlap.rules, scratch, {"held_out": held_out})) as overlaps:
        pairs = read_pairs(config.reading(config.problems), tally)
        apart = (pair for pair in pairs if not overlaps.leave_out(pair.problem_id, pair.messages, dropped))
        kept = write_rows(Pair, folder / "pairs.parquet", apart)
        shown = overlaps.shown()
    shutil.rmtree(scratch)
    return Formatted("pairs", tally, {"pairs": Counter({config.problems.name: kept})}, tally.dropped + dropped, shown)


def _summary(found: Formatted) -> dict[str, object]:
    return {
        "use": found.use,
        "formats": found.tally.formats,
        "rows": found.tally.rows,
        "kept": {name: dict(counts) for name, counts in found.kept.items()},
        "dropped": dict(found.dropped),
        "hidden_characters": found.tally.hidden,
    }
