"""The stage `problems`: the embedded problems, or a user's file, become split, de-duplicated rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from data import arithmetic
from data.problems import ProblemFile, read_few_shot, read_problems, with_prefix, with_system
from data.reading import Reading
from data.rewards.answer import has_answer
from data.rows import Problem, Split
from data.sources import DataFileError
from data.storage import write_rows
from models.config import Config
from tasks.contract import Estimate, Outcome, Stage
from tasks.datasets import dataset_artifact, dataset_bytes, expected_rows
from tasks.run import Result, Run

VERSION = 1
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "transfer")


class ProblemSource(Config):
    """Where the problems come from."""

    problems: Annotated[
        Path | None, Field(description="Data set of problems, in any known format; none: the embedded ones.")
    ] = None
    validation: Annotated[
        Path | None, Field(description="Data set for validation; none: a tenth of the problems, by hash of the prompt.")
    ] = None
    test: Annotated[Path | None, Field(description="Data set for the final test; none: a tenth, by hash.")] = None
    transfer: Annotated[Path | None, Field(description="Data set of other problems, evaluated at the end.")] = None
    format: Annotated[
        str | None, Field(description="Format of these data sets, by name; none: told by their columns.")
    ] = None
    columns: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="Columns: the format's name to the file's, as in {question: Frage}."),
    ]
    limit: Annotated[int | None, Field(ge=1, description="Use at most this many training problems.")] = None
    limit_validation: Annotated[int | None, Field(ge=1, description="Use at most this many for validation.")] = None
    limit_test: Annotated[int | None, Field(ge=1, description="Use at most this many for test.")] = None
    few_shot: Annotated[
        Path | None, Field(description="Worked examples put in front of every problem, for a base model.")
    ] = None

    unusable: Annotated[
        Literal["refuse", "drop"],
        Field(description="What a row that cannot be used does: have its data set refused, or be dropped and counted."),
    ] = "refuse"
    system: Annotated[
        str | None, Field(min_length=1, description="System message for every problem that has none.")
    ] = None

    trains_on_gold: ClassVar[bool] = False
    """Whether training needs gold answers, which the embedded training problems lack: it uses the demonstrations."""
    answers_training_prompts: ClassVar[bool] = True
    """Whether the policy is asked to answer the training prompts."""

    def files(self) -> dict[str, Path]:
        named = {"problems": self.problems, "validation": self.validation, "test": self.test, "transfer": self.transfer}
        return {name: path for name, path in (named | {"few_shot": self.few_shot}).items() if path is not None}

    def reading(self, path: Path) -> Reading:
        return Reading(path, self.format, self.columns, self.unusable == "drop")

    def limits(self) -> dict[str, int | None]:
        return {"train": self.limit, "validation": self.limit_validation, "test": self.limit_test}


@dataclass(frozen=True)
class LoadedProblems:
    """Problems by split, with what was dropped on the way."""

    splits: dict[str, list[Problem]]
    rows: int
    dropped: dict[str, int]


def load_problems(source: ProblemSource, seed: int) -> LoadedProblems:
    """Read, split and de-duplicate all problems. A prompt in two splits stays in the one evaluated last.

    Raises:
        DataFileError: see `data.problems.read_problems`; also a set that ends up without a problem.
    """
    dropped: dict[str, int] = {}
    splits: dict[str, list[Problem]]
    named: Mapping[str, tuple[Path | None, Split | None]] = {
        "problems": (source.problems, None),
        "validation": (source.validation, "validation"),
        "test": (source.test, "test"),
        "transfer": (source.transfer, "transfer"),
    }
    held_out_apart = source.validation is not None and source.test is not None
    ungraded = {"problems"} if source.trains_on_gold and held_out_apart else set()
    read = {
        name: read_problems(source.reading(path), split, None if name in ungraded else has_answer)
        for name, (path, split) in named.items()
        if path
    }
    rows = sum(file.rows for file in read.values())
    dropped["duplicate"] = sum(file.duplicates for file in read.values())
    for file in read.values():
        dropped |= {reason: dropped.get(reason, 0) + count for reason, count in file.dropped.items()}
    splits = _split(read, dropped)
    if source.problems is None:
        problems = list(arithmetic.embedded_problems(seed))
        for wanted in SPLITS:
            if wanted not in read:
                splits[wanted] = [p for p in problems if p.split == embedded_split(source, wanted)]
                rows += len(splits[wanted])
    for split, limit in source.limits().items():
        over = len(splits[split]) - (limit or len(splits[split]))
        if over > 0:
            dropped[f"over_limit_{split}"] = over
            splits[split] = splits[split][:limit]
    for split in ("train", "validation", "test"):
        if not splits[split]:
            raise DataFileError(
                f"{source.problems} leaves no problem for {split} (without --validation and --test files, a "
                f"tenth each is set aside by the hash of the prompt). Give more problems, or those files."
            )
    if source.few_shot:
        turns = read_few_shot(Reading(source.few_shot))
        splits = {split: [with_prefix(p, turns) for p in problems] for split, problems in splits.items()}
    if system := source.system:
        splits = {split: [with_system(p, system) for p in problems] for split, problems in splits.items()}
    return LoadedProblems(splits=splits, rows=rows, dropped={k: v for k, v in dropped.items() if v})


def embedded_split(source: ProblemSource, split: Split) -> Split:
    """The embedded problems that serve as a split."""
    return "demonstration" if split == "train" and source.trains_on_gold else split


def _split(read: Mapping[str, ProblemFile], dropped: dict[str, int]) -> dict[str, list[Problem]]:
    splits: dict[str, list[Problem]] = {split: [] for split in SPLITS}
    for name, file in read.items():
        for problem in file.problems:
            given = name == "problems" and problem.split in read
            # A validation or test file replaces the tenth that would be split off.
            splits["train" if given else problem.split].append(problem)
    taken: set[str] = set()
    for split in reversed(SPLITS):
        kept = [p for p in splits[split] if p.id not in taken]
        if len(kept) < len(splits[split]):
            dropped[f"{split}_also_in_held_out"] = len(splits[split]) - len(kept)
        taken |= {p.id for p in kept}
        splits[split] = kept
    return splits


def expected_counts(source: ProblemSource) -> dict[str, int]:
    """How many problems each split is expected to have, before anything is read in earnest. For the dry run."""
    if source.problems is None:
        own = source.files()
        counts: dict[str, int] = {
            split: expected_rows(own[split]) if split in own else arithmetic.SIZES[embedded_split(source, split)]
            for split in SPLITS
        }
    else:
        held_out = [name for name in ("validation", "test") if getattr(source, name) is None]
        limits = source.limits()
        total = expected_rows(source.problems) or source.limit or 0
        named = {split: getattr(source, split) for split in ("validation", "test", "transfer")}
        # A file that is not there yet counts as its limit, or as one problem: the dry run shows the stage all the same.
        counts = {
            split: (expected_rows(path) or limits.get(split) or 1) if path else 0 for split, path in named.items()
        }
        counts |= dict.fromkeys(held_out, total // 10)
        counts["train"] = total - total // 10 * len(held_out)
    return {split: min(n, source.limits().get(split) or n) for split, n in counts.items()}


def prepare_problems(run: Run, source: ProblemSource, seed: int) -> Result:
    """The stage: one Parquet file per split. A split without problems has none."""
    config: dict[str, Any] = {"limits": source.limits()}
    told = {"format": source.format, "columns": source.columns, "system": source.system}
    told |= {"unusable": source.unusable if source.unusable == "drop" else None}
    config |= {name: value for name, value in told.items() if value}
    if source.problems is None:
        config |= {"embedded": "arithmetic", "generator": arithmetic.VERSION}
        config |= {"train": "demonstration"} if source.trains_on_gold else {}
    inputs = {name: dataset_artifact(path) for name, path in source.files().items()}
    stage = Stage("problems", VERSION, config, inputs, seed, estimate=Estimate(disk_bytes=_bytes(source)))

    def work(attempt: Path) -> Outcome:
        loaded = load_problems(source, seed)
        for split, problems in loaded.splits.items():
            if problems:
                write_rows(Problem, attempt / f"{split}.parquet", problems)
        return Outcome(loaded.rows, sum(map(len, loaded.splits.values())), loaded.dropped)

    return run.execute(stage, work)


def _bytes(source: ProblemSource) -> int:
    return sum(dataset_bytes(path) for path in source.files().values()) or 2_000_000
