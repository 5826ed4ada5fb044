"""The stage `problems`: the embedded problems, or a user's data sets, become split, de-duplicated rows."""

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Gt
from pydantic import AfterValidator, Field, model_validator

from data import arithmetic
from data.files import write_json
from data.formats import Use
from data.prepare.hygiene import NAME
from data.prepare.overlap import Repeated, Rules
from data.prepare.problems import read_few_shot, read_problems, with_prefix, with_system
from data.prepare.reading import Reading, Tally, first_use
from data.prepare.sources import DataFileError
from data.prepare.sources.names import HELD_OUT
from data.prepare.splits import Splitting, quotas, write_splits
from data.rewards.answer import has_answer
from data.rewards.final_answer import close as close_math_worker
from data.rows import SPLITS, Problem, Split
from models.config import Config, ReasoningSetting
from tasks.datasets.inputs import (
    dataset_artifact,
    dataset_bytes,
    expected_rows,
    expected_splits,
    files_noted,
    log_files,
)
from tasks.datasets.prompt_length import PromptLengths
from tasks.policies.base import PolicySource
from tasks.stage.contract import Estimate, Outcome, Stage
from tasks.stage.logs import run_logger
from tasks.stage.run import Result, Run

Judged = tuple[Use, Callable[[str | None], bool] | None]  # what problems are read as, and whether one can be judged
VERSION = 2  # files are of the split in their names; bare answers beside solutions, weights, labels
DATA = "data.json"
LOGGED = 300  # characters of a prompt
NOTICED = {
    "hidden_characters": "%d rows have characters that nobody sees, such as zero-width spaces",
    "cut_prompts": "The beginning of %d prompts was cut off, so that an answer fits behind them",
    "contaminated": "%d training prompts repeat held-out ones",
}


class OverlapRules(Config):
    """Which training prompts are left out for what other prompts say."""

    near_duplicates: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Similarity of two prompts (Jaccard of 5-word runs) from which on the second is left out.",
        ),
    ] = 0.8
    contamination: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="Share of a held-out prompt's words, in 8-word runs, that a training prompt may not repeat.",
        ),
    ] = 0.5
    contaminated: Annotated[
        Literal["drop", "keep"], Field(description="What happens to such a problem; it is counted and shown anyway.")
    ] = "drop"

    @property
    def rules(self) -> Rules:
        return Rules(self.near_duplicates, self.contamination, self.contaminated == "keep")


class OverlapConfig(OverlapRules):
    """The same of problems, with further prompts that are held out."""

    held_out: Annotated[
        tuple[Path, ...],
        Field(description="Data sets that training must not repeat, besides validation, test and transfer."),
    ] = ()


class ProblemSource(Config):
    """Where the problems come from."""

    problems: Annotated[
        Path | None, Field(description="Data set of problems, in any known format; none: the embedded ones.")
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
    limit_transfer: Annotated[int | None, Field(ge=1, description="Use at most this many for transfer.")] = None
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
    placeholders: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], str],
        Field(default_factory=dict, description="What placeholders stand for, as in {name: Ada} for {{name}}."),
    ]
    reasoning: ReasoningSetting = "leave"
    long_prompts: Annotated[
        Literal["refuse", "drop", "cut"],
        Field(
            description="A prompt that leaves no room for an answer: refuse the run; drop it; or cut off its beginning."
        ),
    ] = "refuse"
    overlap: Annotated[OverlapConfig, Field(description="Near-duplicates and contamination.")] = OverlapConfig()

    trains_on_problems: ClassVar[bool] = True
    """Whether training takes rows of these data sets at all, and not only measures policies by them."""
    trains_on_gold: ClassVar[bool] = False
    """Whether training needs gold answers, which the embedded training problems lack: it uses the demonstrations."""
    answers_training_prompts: ClassVar[bool] = True
    """Whether the policy is asked to answer the training prompts."""

    @property
    def learns_every_answer(self) -> bool:
        """Whether a conversation's earlier answers are learned, and not its last alone."""
        return getattr(getattr(self, "train", None), "loss_on", "last") == "all"

    @model_validator(mode="after")
    def _mixture_has_a_first(self) -> Self:
        if self.mixture and self.problems is None:
            raise ValueError("mixture: what is mixed with it is missing. Set problems, which has weight 1.")
        return self

    def files(self) -> dict[str, Path]:
        """Every data set, by the setting that names it."""
        named = {"problems": self.problems, "validation": self.validation, "test": self.test, "transfer": self.transfer}
        found = {name: path for name, path in (named | {"few_shot": self.few_shot}).items() if path is not None}
        found |= {f"mixture.{number}": Path(path) for number, path in enumerate(self.mixture, start=1)}
        return found | {f"held_out.{number}": path for number, path in enumerate(self.overlap.held_out, start=1)}

    def weights(self) -> dict[str, float]:
        """Weight of each source of a mixture, by its name in the rows; none if there is one source only."""
        paths = {str(self.problems): 1.0, **self.mixture} if self.mixture else {}
        return {self.source_name(Path(path)): weight for path, weight in paths.items()}

    def source_name(self, path: Path) -> str:
        """What a data set is called in the rows: its file's name, or its path where two have the same name."""
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
        """What problems are read as, and whether one with a reference can be judged.

        Args:
            trained, measured: whether answers to them are trained on, and whether policies are measured by them.
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
        """Whether the embedded problems stand in for those that are not given."""
        return self.problems is None

    @property
    def answers_held_out(self) -> bool:
        """Whether policies are asked to answer held-out prompts."""
        return True

    @property
    def held_out_apart(self) -> bool:
        """Whether validation and test are data sets of their own."""
        return self.validation is not None and self.test is not None

    def limits(self) -> dict[str, int | None]:
        limits = {"train": self.limit, "validation": self.limit_validation, "test": self.limit_test}
        # Runs from before this setting was there have not drifted from it.
        return limits | ({} if self.limit_transfer is None else {"transfer": self.limit_transfer})


def split_problems(
    source: ProblemSource,
    seed: int,
    folder: Path,
    rules: Rules,
    room: PromptLengths | None = None,
    use: Use | None = None,
) -> tuple[Tally, Splitting]:
    """Read all problems and write each split to its Parquet file in `folder`.

    Args:
        room: sees to prompts that leave no room for an answer; None where nobody answers them.
        use: what all rows are read as; None: as the loop needs them.

    Raises:
        DataFileError: see `data.prepare.problems.read_problems`.
        PromptTooLongError: a prompt leaves no room for an answer, and `long_prompts` says to refuse it.
    """
    tally = Tally()
    told: dict[str, Any] = {"placeholders": source.placeholders, "reasoning": source.reasoning == "keep"}
    turns = read_few_shot(Reading(source.few_shot, **told)) if source.few_shot else []

    def prompted(problem: Problem) -> Problem:
        prefixed = with_prefix(problem, turns)
        return with_system(prefixed, source.system) if source.system else prefixed

    def finish(problem: Problem) -> Problem:
        finished = prompted(problem)
        if room:
            room.check(finished)
        return finished

    problems = _problems(source, seed, tally, use)
    if room:
        fitted = (room.fit(problem, prompted, tally) for problem in problems)
        problems = (problem for problem in fitted if problem is not None)
    others = read_others(source)
    found = write_splits(problems, others, folder, rules, source.limits(), source.weights(), seed, finish)
    close_math_worker()  # references may have been tried there
    return tally, found


def require_problems(source: ProblemSource) -> None:
    """Refuse to train a model on nothing, and the embedded problems for what they are not.

    Raises:
        DataFileError: there are no problems, or the reward judges others than the embedded ones.
    """
    if source.problems is not None:
        return
    if not source.embedded and source.trains_on_problems:
        raise DataFileError(
            "No data set is given to train on. The embedded arithmetic is for the embedded model only.",
            what_next="Give one with --demonstrations." if source.trains_on_gold else "Give one with --problems.",
        )
    read_as = {source.trained_on()[0], source.measured_on()[0]} - {"problems", "prompts", "demonstrations"}
    if source.embedded and read_as:
        raise DataFileError(
            f"The embedded problems are arithmetic, and the reward judges {' and '.join(sorted(read_as))}.",
            what_next="Give --problems with such.",
        )


def require_every_split(source: ProblemSource, tally: Tally, found: Splitting) -> None:
    """Refuse problems of which none are left to train, to validate or to test on.

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
            f"{where} no problem for {split}.{apart} {tally.rows:,} rows were "
            f"read{f'; left out were {reasons}' if reasons else ''}.",
            what_next="Give more problems, or a data set for each with --validation and --test; if too many count as "
            "contaminated, raise --overlap.contamination.",
        )


def read_held_out(source: ProblemSource) -> Iterator[Problem]:
    """The prompts of all data sets that training must not repeat, of whatever format they are."""
    held_out: dict[Split, Path | None] = {"validation": source.validation, "test": source.test}
    for split, path in {**held_out, "transfer": source.transfer}.items():
        if path is not None:
            yield from _read_any(source, path, split)
    yield from read_others(source)


def read_others(source: ProblemSource) -> Iterator[Problem]:
    """The prompts of those of them that are in no split."""
    for path in source.overlap.held_out:
        yield from _read_any(source, path, None)


def _read_any(source: ProblemSource, path: Path, split: Split | None) -> Iterator[Problem]:
    reading, tally = source.reading(path), Tally()
    yield from read_problems(reading, split, None, tally, first_use(reading), source.source_name(path))
    log_files(tally.files)
    for reason, count in tally.dropped.items():
        run_logger().warning("%s: %d rows that training must not repeat cannot be used (%s)", path, count, reason)


def _problems(source: ProblemSource, seed: int, tally: Tally, use: Use | None) -> Iterator[Problem]:
    given: dict[str, Path | None] = {
        "validation": source.validation,
        "test": source.test,
        "transfer": source.transfer,
    }
    if use is None:
        trained_on, measured_on = source.trained_on(), source.measured_on()
    else:
        trained_on = measured_on = use, has_answer if use == "problems" else None
    apart: list[Split] = [split for split in SPLITS if given.get(split) is not None]
    for path in (source.problems, *map(Path, source.mixture)):
        if path is not None:
            name = source.source_name(path)
            reading = source.reading(path)
            for problem in read_problems(reading, None, trained_on[1], tally, trained_on[0], name, apart):
                if source.mixture:
                    problem = replace(problem, source=name)  # by which it is weighed
                # A validation or test file replaces the tenth that would be split off.
                yield replace(problem, split="train") if given.get(problem.split) is not None else problem
    for split in SPLITS:
        if (path := given.get(split)) is not None:
            name = source.source_name(path)
            yield from read_problems(source.reading(path), split, measured_on[1], tally, measured_on[0], name)
    if source.embedded:
        wanted = {str(embedded_split(source, split)): split for split in SPLITS if given.get(split) is None}
        generated = arithmetic.worked_problems if source.trains_on_gold else arithmetic.embedded_problems
        for problem in generated(seed):
            if problem.split in wanted:
                tally.rows += 1
                yield replace(problem, split=wanted[problem.split])


def embedded_split(source: ProblemSource, split: Split) -> Split:
    """The embedded problems that serve as a split."""
    return "demonstration" if split == "train" and source.trains_on_gold else split


def expected_counts(source: ProblemSource) -> dict[str, int]:
    """How many problems each split is expected to have, before anything is read in earnest. For the dry run."""
    limits, own = source.limits(), source.files()
    given: dict[Split, Path] = {split: own[split] for split in SPLITS if split in own}
    # A file that is not there yet counts as its limit, or as one problem: the dry run shows the stage all the same.
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
    """The stage: one Parquet file per split, `held_out.parquet` if training must not repeat further data sets.

    What was noticed on the way is in `data.json`. A split without problems has no file.

    Raises:
        DataFileError: there is nothing to train on.
    """
    require_problems(source)
    room = PromptLengths(source) if isinstance(source, PolicySource) else None
    config: dict[str, Any] = {"limits": source.limits(), **(room.settings() if room else {})}
    told: dict[str, Any] = {"format": source.format, "columns": source.columns, "system": source.system}
    told |= {"unusable": source.unusable if source.unusable == "drop" else None, "placeholders": source.placeholders}
    told |= {"reasoning": source.reasoning if source.reasoning == "keep" else None}
    told |= {"every_answer": source.learns_every_answer, "weights": list(source.mixture.values())}
    told |= {"held_out_as": None if source.measured_on()[1] or not source.trains_on_gold else source.measured_on()[0]}
    config |= {name: value for name, value in told.items() if value}
    rules = Rules()
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

    def work(attempt: Path) -> Outcome:
        tally, found = split_problems(source, run.seed, attempt, rules, room)
        require_every_split(source, tally, found)
        write_notes(attempt / DATA, tally, found.contaminated, found.repeated)
        kept = sum(counts.total() for counts in found.sources.values())
        return Outcome(tally.rows, kept, dict(tally.dropped + found.dropped))

    return run.execute(stage, work)


def write_notes(file: Path, tally: Tally, contaminated: int, repeated: list[Repeated]) -> None:
    """Log what was noticed in data sets, and write it down as JSON."""
    notes = {
        "hidden_characters": tally.hidden,
        "cut_prompts": tally.cut,
        "contaminated": contaminated,
    }
    log = run_logger()
    log_files(tally.files)
    for name, count in notes.items():
        if count:
            log.warning(NOTICED[name], count)
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
