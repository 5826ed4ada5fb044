"""The stage `problems`: turns the embedded problems, or a user's data sets, into split, deduplicated rows."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Gt
from pydantic import AfterValidator, Field, model_validator

from data import arithmetic
from data.files import write_json
from data.formats import Use
from data.prepare.hygiene import NAME
from data.prepare.overlap import Repeated, Rules
from data.prepare.prepare import Preparation, ProblemSet, prepare
from data.prepare.prompt_lengths import PromptLengths
from data.prepare.reading import Reading, Tally
from data.prepare.sources import DataFileError
from data.prepare.sources.names import HELD_OUT
from data.prepare.splits import Splitting, quotas
from data.rewards.answer import has_answer
from data.rows import SPLITS, Split
from data.wording import and_left_out, counted
from models.config import ReasoningSetting
from models.config_base import Config
from tasks.datasets.inputs import (
    dataset_artifact,
    dataset_bytes,
    expected_rows,
    expected_splits,
    files_noted,
    log_files,
)
from tasks.datasets.prompt_length import length_settings, prompt_lengths
from tasks.policies.base import PolicySource
from tasks.stage.contract import Estimate, OnDrift, Outcome, Stage, Status, status
from tasks.stage.logs import run_logger
from tasks.stage.run import Result, Run

Judged = tuple[Use, Callable[[str | None], bool] | None]  # what problems are read as, and whether one can be judged
VERSION = 3  # weights of every answer, labels in words, NaN as a missing value, options as objects or JSON
DATA = "data.json"
LOGGED = 300  # characters of a prompt
NOTICED = {  # by what was noticed: what is counted, and the words after the count
    "hidden_characters": ("row", "with invisible characters, such as zero-width spaces"),
    "cut_prompts": ("prompt", "truncated on the left, to leave room for an answer"),
    "contaminated": ("training prompt", "repeating a held-out one"),
}


class OverlapRules(Config):
    """Which training prompts are left out because they repeat others."""

    near_duplicates: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Similarity of two prompts (Jaccard of word 5-grams) from which the second is left out.",
        ),
    ] = 0.8
    contamination: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Share of a held-out prompt's words, in word 8-grams, that a training prompt may not repeat.",
        ),
    ] = 0.5
    contaminated: Annotated[
        Literal["drop", "keep"],
        Field(description="Whether to drop or keep such a problem; it is counted and shown either way."),
    ] = "drop"

    @property
    def rules(self) -> Rules:
        return Rules(self.near_duplicates, self.contamination, self.contaminated == "keep")


class OverlapConfig(OverlapRules):
    """The same for problems, with further held-out prompts."""

    held_out: Annotated[
        tuple[Path, ...],
        Field(description="Data sets that training must not repeat, besides validation, test and transfer."),
    ] = ()


class ProblemSource(Config):
    """Where the problems come from."""

    problems: Annotated[
        Path | None, Field(description="Data set of problems, in any known format. Default: the embedded one.")
    ] = None
    mixture: Annotated[
        dict[Annotated[str, AfterValidator(os.path.expanduser)], Annotated[float, Gt(0)]],
        Field(
            default_factory=dict,
            description="More data sets of problems and their weights, as in {b.jsonl: 0.5}; `problems` has weight 1. "
            "Training problems are drawn in these proportions.",
        ),
    ]
    validation: Annotated[
        Path | None, Field(description="Data set for validation. Default: a tenth of the problems, by prompt hash.")
    ] = None
    test: Annotated[
        Path | None, Field(description="Data set for the final test. Default: a tenth of the problems, by prompt hash.")
    ] = None
    transfer: Annotated[Path | None, Field(description="Data set of other problems, evaluated at the end.")] = None
    format: Annotated[
        str | None, Field(description="Format of these data sets, by name. Default: recognized by their columns.")
    ] = None
    columns: Annotated[
        dict[str, str],
        Field(
            default_factory=dict,
            description="Column names: from the format's name to the file's, as in {question: Frage}.",
        ),
    ]
    limit: Annotated[int | None, Field(ge=1, description="Use at most this many training problems.")] = None
    limit_validation: Annotated[int | None, Field(ge=1, description="Use at most this many for validation.")] = None
    limit_test: Annotated[int | None, Field(ge=1, description="Use at most this many for test.")] = None
    limit_transfer: Annotated[int | None, Field(ge=1, description="Use at most this many for transfer.")] = None
    few_shot: Annotated[
        Path | None, Field(description="Data set of worked examples put before every problem, for a base model.")
    ] = None

    unusable: Annotated[
        Literal["refuse", "drop"],
        Field(description="If a row is unusable: refuse the data set, or drop the row and count it."),
    ] = "refuse"
    system: Annotated[str | None, Field(min_length=1, description="System message for problems without one.")] = None
    placeholders: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], str],
        Field(default_factory=dict, description="Values of placeholders, as in {name: Ada} for {{name}}."),
    ]
    reasoning: ReasoningSetting = "leave"
    long_prompts: Annotated[
        Literal["refuse", "drop", "cut"],
        Field(
            description="If a prompt leaves no room for an answer: refuse the run, drop the prompt, or cut off its "
            "beginning."
        ),
    ] = "refuse"
    overlap: Annotated[OverlapConfig, Field(description="Near-duplicates and contamination.")] = OverlapConfig()

    trains_on_problems: ClassVar[bool] = True
    """Whether training uses rows of these data sets; otherwise they only measure policies."""
    trains_on_gold: ClassVar[bool] = False
    """Whether training needs gold answers. The embedded training problems lack them, so demonstrations are used."""
    answers_training_prompts: ClassVar[bool] = True
    """Whether the policy is asked to answer the training prompts."""

    @property
    def learns_every_answer(self) -> bool:
        """Whether a conversation's earlier answers are learned too, not only the last."""
        return getattr(getattr(self, "train", None), "loss_on", "last") == "all"

    @model_validator(mode="after")
    def _mixture_has_a_first(self) -> Self:
        if self.mixture and self.problems is None:
            raise ValueError("mixture needs a first data set. Set problems, which has weight 1.")
        return self

    def files(self) -> dict[str, Path]:
        """Return every data set, by the setting that names it."""
        named = {"problems": self.problems, "validation": self.validation, "test": self.test, "transfer": self.transfer}
        found = {name: path for name, path in (named | {"few_shot": self.few_shot}).items() if path is not None}
        found |= {f"mixture.{number}": Path(path) for number, path in enumerate(self.mixture, start=1)}
        return found | {f"held_out.{number}": path for number, path in enumerate(self.overlap.held_out, start=1)}

    def weights(self) -> dict[str, float]:
        """Return the weight of each source of a mixture, by its name in the rows; empty if there is no mixture."""
        paths = {str(self.problems): 1.0, **self.mixture} if self.mixture else {}
        return {self.source_name(Path(path)): weight for path, weight in paths.items()}

    def source_name(self, path: Path) -> str:
        """The name of a data set in the rows: its file's name, or its path if two have the same name."""
        names = [known.name for known in self.files().values()]
        return path.name if names.count(path.name) == 1 else str(path)

    def reading(self, path: Path) -> Reading:
        trained_on = path in (self.problems, *map(Path, self.mixture))
        return Reading(
            path,
            self.format,
            self.columns,
            self.unusable == "drop",
            self.placeholders,
            self.reasoning == "keep",
            trained_on and self.learns_every_answer,
        )

    def judged_by(self, trained: bool = True, measured: bool = True) -> tuple[Use, Callable[[str | None], bool]]:
        """Return what problems are read as, and a function that tells whether a problem's reference can be judged.

        Args:
            trained, measured: whether answers to them are trained on, and whether policies are measured on them.
        """
        return "problems", has_answer

    def trained_on(self) -> Judged:
        """What training rows are read as."""
        return self.judged_by(measured=not self.held_out_apart)

    def measured_on(self) -> Judged:
        """What the rows of validation, test and transfer are read as."""
        return self.judged_by(trained=False)

    @property
    def embedded(self) -> bool:
        """Whether the embedded problems replace those that are not given."""
        return self.problems is None

    @property
    def answers_held_out(self) -> bool:
        """Whether policies are asked to answer held-out prompts."""
        return True

    @property
    def held_out_apart(self) -> bool:
        """Whether validation and test are separate data sets."""
        return self.validation is not None and self.test is not None

    def preparation(self, seed: int, use: Use | None = None) -> Preparation:
        """The problems that the loop gets, before any are left out for their length or as repetitions.

        Args:
            use: what all rows are read as; None: as the loop needs them.
        """
        trained_on, measured_on = self.trained_on(), self.measured_on()
        if use is not None:
            trained_on = measured_on = use, has_answer if use == "problems" else None
        given = [path for path in (self.problems, *map(Path, self.mixture)) if path is not None]
        own: dict[Split, Path | None] = {"validation": self.validation, "test": self.test, "transfer": self.transfer}
        apart = {split: self._set(path, measured_on) for split, path in own.items() if path is not None}
        splits = [split for split in SPLITS if self.embedded and split not in apart]
        told: dict[str, Any] = {"placeholders": self.placeholders, "reasoning": self.reasoning == "keep"}
        return Preparation(
            given=tuple(self._set(path, trained_on) for path in given),
            apart=apart,
            further=tuple(self._set(path, (None, None)) for path in self.overlap.held_out),
            embedded={str(embedded_split(self, split)): split for split in splits},
            worked=self.trains_on_gold,
            few_shot=Reading(self.few_shot, **told) if self.few_shot else None,
            system=self.system,
            limits=self.limits(),
            weights=self.weights(),
            seed=seed,
        )

    def _set(self, path: Path, judged: tuple[Use | None, Callable[[str | None], bool] | None]) -> ProblemSet:
        return ProblemSet(self.reading(path), self.source_name(path), *judged)

    def limits(self) -> dict[str, int | None]:
        limits = {"train": self.limit, "validation": self.limit_validation, "test": self.limit_test}
        # Left out if not set, so that runs from before this setting existed do not drift.
        return limits | ({} if self.limit_transfer is None else {"transfer": self.limit_transfer})


def require_problems(source: ProblemSource) -> None:
    """Refuse to train without problems, or to use the embedded problems with a reward that cannot judge them.

    Raises:
        DataFileError: there are no problems, or the reward judges another kind than the embedded ones.
    """
    if source.problems is not None:
        return
    if not source.embedded and source.trains_on_problems:
        raise DataFileError(
            "No data set to train on is given. The embedded arithmetic is for the embedded model only.",
            what_next="Give one with --demonstrations." if source.trains_on_gold else "Give one with --problems.",
        )
    read_as = {source.trained_on()[0], source.measured_on()[0]} - {"problems", "prompts", "demonstrations"}
    if source.embedded and read_as:
        raise DataFileError(
            f"The embedded problems are arithmetic, but the reward judges {' and '.join(sorted(read_as))}.",
            what_next="Give problems of that kind with --problems.",
        )


def require_every_split(source: ProblemSource, tally: Tally, found: Splitting) -> None:
    """Refuse problems that leave the training, validation or test set empty.

    Raises:
        DataFileError: naming the set, and what was left out.
    """
    everything = source.trains_on_problems or source.problems is not None or source.embedded
    required = ("train", *HELD_OUT) if everything else tuple(split for split in HELD_OUT if split in source.files())
    for split in required:
        if found.sources[split]:
            continue
        dropped = (tally.dropped + found.dropped).most_common()
        reasons = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped)
        named = source.files().get("problems" if split == "train" else split)
        where = f"{named or source.problems or 'The embedded set'} leaves"
        apart = "" if named else " A tenth of the problems is set aside for it, by the hash of the prompt."
        raise DataFileError(
            f"{where} no problem for {split}.{apart} {counted(tally.rows, 'row')} "
            f"read{f'; left out: {reasons}' if reasons else ''}.",
            what_next="Give more problems, or separate data sets with --validation and --test; if too many count as "
            "contaminated, raise --overlap.contamination.",
        )


def note_further(path: Path, tally: Tally) -> None:
    """Log the result of reading a data set that training must not repeat."""
    log_files(tally.files)
    for reason, count in tally.dropped.items():
        run_logger().warning(
            "%s, which training must not repeat: %s unusable (%s)", path, counted(count, "row"), reason
        )


def embedded_split(source: ProblemSource, split: Split) -> Split:
    """The embedded problems that serve as a split."""
    return "demonstration" if split == "train" and source.trains_on_gold else split


def expected_counts(source: ProblemSource) -> dict[str, int]:
    """Return the expected number of problems in each split, before they are prepared. For the dry run."""
    limits, own = source.limits(), source.files()
    given: dict[Split, Path] = {split: own[split] for split in SPLITS if split in own}
    # A missing file counts as its limit, or as one problem, so that the dry run still shows the stage.
    counts: dict[str, int] = {
        split: expected_rows(path, split) or (0 if source.problems is None else limits.get(split) or 1)
        for split, path in given.items()
    }
    if source.embedded:
        counts = {split: arithmetic.SIZES[embedded_split(source, split)] for split in SPLITS} | counts
    elif source.problems is None:
        counts = dict.fromkeys(SPLITS, 0) | counts
    else:
        held_out = [split for split in HELD_OUT if split not in given]
        rows = {path: expected_splits(Path(path), None, given) for path in [str(source.problems), *source.mixture]}
        named = {split: n for split in held_out if (n := sum(counted[split] for counted in rows.values()))}
        totals = {path: counted["train"] + counted[None] for path, counted in rows.items()}
        total = sum(totals.values()) or source.limit or 1
        tenths = dict.fromkeys((split for split in held_out if split not in named), max(total // 10, 1))
        counts = {"transfer": 0} | counts | named | tenths
        counts["train"] = max(total - sum(tenths.values()), 1)
        if source.mixture and all(totals.values()):
            drawn = quotas(totals, {str(source.problems): 1.0, **source.mixture}, None)
            counts["train"] = counts["train"] * sum(drawn.values()) // total
    return {split: min(n, limits.get(split) or n) for split, n in counts.items()}


def prepare_problems(run: Run, source: ProblemSource) -> Result:
    """The stage: one Parquet file per split, and `held_out.parquet` if training must not repeat further data sets.

    Notices about the data are in `data.json`. A split without problems has no file.

    Raises:
        DataFileError: there is nothing to train on.
    """
    stage, told = _stage(run, source)

    def work(attempt: Path) -> Outcome:
        tally, found = take_prepared(stage, attempt) or prepare(told(None), attempt, note_further)
        require_every_split(source, tally, found)
        write_notes(attempt / DATA, tally, found.contaminated, found.repeated)
        kept = {split: counts.total() for split, counts in found.sources.items()}
        dropped = dict(tally.dropped + found.dropped)
        said = ", ".join(f"{kept[split]:,} {split}" for split in SPLITS if kept.get(split))
        return Outcome(tally.rows, sum(kept.values()), dropped, said=said + and_left_out(dropped))

    return run.execute(stage, work)


@contextmanager
def look_ahead(run: Run, source: ProblemSource, lengths: PromptLengths) -> Iterator[Path]:
    """Prepare all problems before the run begins, in a folder with a file per split. The stage takes them from there.

    If the stage is finished, the folder is the stage's own.

    Raises:
        DataFileError: there is nothing to train on, or a split is empty.
        PromptTooLongError: see `data.prepare.prepare.prepare`.
        CorruptStageError: the finished stage is damaged.
    """
    stage, told = _stage(run, source)
    state, finished = status(run.directory, stage, run.on_drift)
    if finished is not None and state is Status.REUSE:
        finished.verify()
        yield finished.path
        return
    folder, notes = TemporaryDirectory(), _Notes()
    found = prepare(told(lengths), Path(folder.name), notes.add)
    require_every_split(source, *found)
    yield Path(folder.name)
    if stage.ready and (finished is None or run.on_drift is OnDrift.REBUILD):
        _prepared.clear()  # problems of another run are no longer needed
        _prepared[json.dumps(stage.identity())] = _Prepared(folder, *found, notes)
    else:
        folder.cleanup()


def take_prepared(stage: Stage, folder: Path) -> tuple[Tally, Splitting] | None:
    """Move the problems that `look_ahead` prepared for this stage into a folder; None if there are none."""
    if (made := _prepared.pop(json.dumps(stage.identity()), None)) is None:
        return None
    for file in Path(made.folder.name).glob("*.parquet"):
        shutil.move(file, folder / file.name)
    made.folder.cleanup()
    made.notes.log()
    return made.tally, made.splitting


@dataclass
class _Notes:
    """Results of reading data sets that training must not repeat, kept for the stage's log."""

    found: list[tuple[Path, Tally]] = field(default_factory=list)

    def add(self, path: Path, tally: Tally) -> None:
        self.found.append((path, tally))

    def log(self) -> None:
        for path, tally in self.found:
            note_further(path, tally)


@dataclass(frozen=True)
class _Prepared:
    folder: TemporaryDirectory[str]
    tally: Tally
    splitting: Splitting
    notes: _Notes


_prepared: dict[str, _Prepared] = {}
"""Problems prepared before the run began, by the identity of the stage that takes them."""


def _stage(run: Run, source: ProblemSource) -> tuple[Stage, Callable[[PromptLengths | None], Preparation]]:
    """Return the stage and its preparation, which reads the policy's tokenizer if it gets no prompt lengths."""
    require_problems(source)
    of_a_policy, rules = isinstance(source, PolicySource), Rules()
    config: dict[str, Any] = {"limits": source.limits(), **(length_settings(source) if of_a_policy else {})}
    also: dict[str, Any] = {"format": source.format, "columns": source.columns, "system": source.system}
    also |= {"unusable": source.unusable if source.unusable == "drop" else None, "placeholders": source.placeholders}
    also |= {"reasoning": source.reasoning if source.reasoning == "keep" else None}
    also |= {"every_answer": source.learns_every_answer, "weights": list(source.mixture.values())}
    also |= {"held_out_as": None if source.measured_on()[1] or not source.trains_on_gold else source.measured_on()[0]}
    config |= {name: value for name, value in also.items() if value}
    if source.embedded:
        config |= {"embedded": "arithmetic", "generator": arithmetic.VERSION}
        config |= {"train": "demonstration"} if source.trains_on_gold else {}
    else:
        rules = source.overlap.rules
        config |= {"overlap": asdict(rules)}
    inputs = {name: dataset_artifact(path, run.planning) for name, path in source.files().items()}
    expected = {f"{split}.parquet": count for split, count in expected_counts(source).items()}
    stage = Stage(
        "problems", VERSION, config, inputs, run.seed, estimate=Estimate(disk_bytes=_bytes(source)), expected=expected
    )

    def told(lengths: PromptLengths | None) -> Preparation:
        lengths = lengths or (prompt_lengths(source) if of_a_policy else None)
        return replace(source.preparation(run.seed), rules=rules, lengths=lengths)

    return stage, told


def write_notes(file: Path, tally: Tally, contaminated: int, repeated: list[Repeated]) -> None:
    """Log the notices about data sets, and write them as JSON."""
    notes = {
        "hidden_characters": tally.hidden,
        "cut_prompts": tally.cut,
        "contaminated": contaminated,
    }
    log = run_logger()
    log_files(tally.files)
    for name, count in notes.items():
        if count:
            noun, what = NOTICED[name]
            log.warning("%s %s", counted(count, noun), what)
    for shown in repeated:
        reason, share = shown.reason.replace("_", " "), f"{shown.share:.0%}"
        prompt, other = (shorten(text, LOGGED) for text in (shown.prompt, shown.repeats))
        log.warning("%s (%s): %r repeats %r of %s", reason, share, prompt, other, shown.source)
    for said in tally.said():
        log.warning("%s", said)
    told = {"noticed": dict(tally.noticed), "repeated": [asdict(shown) for shown in repeated]}
    write_json(file, {**notes, **told, **files_noted(tally.files)})


def _bytes(source: ProblemSource) -> int:
    return 3 * sum(dataset_bytes(path) for path in source.files().values()) or 2_000_000
