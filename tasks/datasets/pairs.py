"""Pairs: the stages that make them of gold answers (SPIN) or of a policy's own, and a user's data sets of pairs."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from data.files import write_json
from data.labels import EVEN, Label
from data.pairing import pair_best_over_worst, pair_gold_over_own, pair_labeled
from data.prepare.overlap import Overlaps, Rules
from data.prepare.preferences import is_held_out, read_pairs
from data.prepare.reading import Reading, Tally
from data.prepare.splits import HELD_OUT
from data.render import completion_token_ids
from data.rows import Pair, Problem, Sample, Score
from data.storage import RowWriter, read_rows, write_rows
from data.wording import and_left_out, counted
from models.config_base import Config
from tasks.datasets.problems import DATA, write_notes
from tasks.datasets.row_length import tokenizer_and_limit
from tasks.datasets.select import SELECTION, NothingKeptError
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 2  # more formats; a file belongs to the split in its name; the chat template frames answers
JUDGED_VERSION = LABELED_VERSION = 1
PAIRS_FILE = "pairs.parquet"
RANKED_PROMPT = "on whose prompt the judge is measured"
NOTES, NOTES_FILE = ("gold cut", "own truncated"), "pairs.json"


class PairFormat(Config):
    """How a user's pairs are read."""

    pairs_format: Annotated[
        str | None, Field(description="Format of the pairs, by name. Default: recognized by the columns.")
    ] = None
    pairs_columns: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="Column names of the pairs: from the format's name to the file's."),
    ]

    def pair_reading(self, path: Path) -> Reading:
        """How a data set of pairs is read, with the flow's settings for reading rows."""
        told: Any = self
        drop, keep = told.unusable == "drop", told.reasoning == "keep"
        return Reading(path, self.pairs_format, self.pairs_columns, drop, told.placeholders, keep)


class PairSource(PairFormat):
    """Where a user's pairs come from."""

    pairs: Annotated[Path, Field(description="Data set of pairs, in any known format.")]


def pair(at: Place, problems: Artifact, samples: Artifact, tokenizer: Artifact, max_tokens: int) -> Result:
    """Pair gold with own answers into `pairs.parquet`; counts by reason go to `selection.json`.

    The number of kept pairs with a side cut at the token limit goes to `pairs.json`.

    Args:
        tokenizer: a policy whose tokenizer renders the gold answers.
        max_tokens: gold answers are cut at this length, as the policy's answers were during generation.

    Raises:
        NothingKeptError: all of the opponent's answers equal the gold ones or are empty.
    """
    return _pair(at, "pair", (problems, samples), tokenizer, max_tokens)


@dataclass(frozen=True)
class Apart:
    """Which of a policy's pairs are not learned.

    Attributes:
        share: of the problems, by the hash of their prompts, whose pairs go to `held_out.parquet` instead.
        prompts: problems whose prompts are left out.
        undecided: pairs whose label is no higher are left out, if a model labels them.
        measured: whether something is measured on those in `held_out.parquet`, which then may not be empty.
    """

    share: float
    prompts: Artifact | None = None
    undecided: float = EVEN
    measured: bool = False


def pair_judged(at: Place, problems: Artifact, samples: Artifact, scores: Artifact, apart: Apart) -> Result:
    """Pair the best answer to each problem with the worst into `pairs.parquet`; counts go to `selection.json`.

    Counts are of problems; those of answers that took no part go to `pairs.json`.

    Raises:
        NothingKeptError: no pair is left.
    """
    answers = Counter[str]()

    def made(counts: Counter[str]) -> Iterator[Pair]:
        answers.clear()
        rows = read_rows(Problem, problems.path), read_rows(Sample, samples.path), read_rows(Score, scores.path)
        yield from pair_best_over_worst(*rows, counts, answers)

    own = _OwnPairs(made, JUDGED_VERSION, "problems", answers, _no_pair)
    return _pair_own(at, own, {"problems": problems, "samples": samples, "scores": scores}, apart)


def pair_by_label(at: Place, problems: Artifact, samples: Artifact, labels: Artifact, apart: Apart) -> Result:
    """Write the answers that a model has compared, with its labels, to `pairs.parquet`; counts to `selection.json`.

    Raises:
        NothingKeptError: no pair is left.
    """

    def made(counts: Counter[str]) -> Iterator[Pair]:
        rows = read_rows(Problem, problems.path), read_rows(Sample, samples.path), read_rows(Label, labels.path)
        yield from pair_labeled(*rows, counts, apart.undecided)

    told = {"undecided": apart.undecided}
    own = _OwnPairs(made, LABELED_VERSION, "compared", Counter(), _no_label, told)
    return _pair_own(at, own, {"problems": problems, "samples": samples, "labels": labels}, apart)


@dataclass(frozen=True)
class _OwnPairs:
    """How pairs are made of a policy's own answers.

    Attributes:
        made: yields them, and counts by reason.
        given: the count of all that there could be.
        answers: further counts, for `pairs.json`.
        nothing: the error if there is none.
        settings: what else decides which there are.
    """

    made: Callable[[Counter[str]], Iterator[Pair]]
    version: int
    given: str
    answers: Counter[str]
    nothing: Callable[[str, Counter[str], Counter[str], dict[str, int]], NothingKeptError]
    settings: Mapping[str, float] = field(default_factory=dict)


def _pair_own(at: Place, own: _OwnPairs, inputs: dict[str, Artifact], apart: Apart) -> Result:
    share, problems = apart.share, inputs["problems"]
    inputs |= {"ranked": apart.prompts} if apart.prompts else {}
    stage = Stage(
        at.stage("pair"),
        own.version,
        {"held_out": share, **own.settings},
        inputs,
        estimate=Estimate(disk_bytes=2_000 * problems.expected + 1_000_000),
        expected={PAIRS_FILE: problems.expected, f"{HELD_OUT}.parquet": int(share * problems.expected)},
    )

    def work(attempt: Path) -> Outcome:
        counts = Counter[str]()
        measured = {problem.id for problem in read_rows(Problem, apart.prompts.path)} if apart.prompts else set()
        unseen = attempt / f"{HELD_OUT}.parquet"
        with RowWriter(Pair, attempt / PAIRS_FILE) as training, RowWriter(Pair, unseen) as held_out:
            for pair in own.made(counts):
                if pair.problem_id in measured:
                    counts[RANKED_PROMPT] += 1
                    continue
                unseen_pair = is_held_out(pair.problem_id, share)
                counts["held out"] += unseen_pair
                (held_out if unseen_pair else training).write(pair)
        given, kept = counts[own.given], counts["kept"] - counts["held out"] - counts[RANKED_PROMPT]
        dropped = {reason: n for reason, n in counts.items() if reason not in (own.given, "kept") and n}
        if not kept:
            raise own.nothing(at.stage("pair"), counts, own.answers, dropped)
        if apart.measured and not counts["held out"]:
            raise NothingKeptError(
                f"Of {counted(kept, 'pair')} none is held out, so what learns them cannot be measured.",
                "Nothing was trained; answers are kept.",
                "Give more prompts, or raise held_out_pairs.",
            )
        write_json(attempt / SELECTION, {"samples": given, "kept": kept} | dropped)
        write_json(attempt / NOTES_FILE, dict(own.answers))
        return Outcome(given, kept, dropped, said=counted(kept, "pair") + and_left_out(dropped))

    return at.run.execute(stage, work)


def pair_held_out(
    at: Place, problems: Mapping[str, Artifact], samples: Result, tokenizer: Artifact, max_tokens: int
) -> dict[str, Artifact]:
    """The same for held-out problems, set by set. These pairs are not trained on, so a set may be empty.

    Args:
        problems: by set.
        samples: result of the stage that answered them, with one folder per set.
    """
    stages = {
        known: _pair(at, f"pair-{known}", (artifact, samples.artifact(known)), tokenizer, max_tokens)
        for known, artifact in problems.items()
    }
    return {known: stage.artifact(PAIRS_FILE) for known, stage in stages.items()}


def _pair(at: Place, kind: str, sides: tuple[Artifact, Artifact], tokenizer: Artifact, max_tokens: int) -> Result:
    problems, samples = sides
    stage = Stage(
        at.stage(kind),
        VERSION,
        {"max_tokens": max_tokens},
        {"problems": problems, "samples": samples, "tokenizer": tokenizer},
        estimate=Estimate(disk_bytes=samples.expected * max_tokens * 8),
        expected={PAIRS_FILE: samples.expected},
    )

    def work(attempt: Path) -> Outcome:
        render = partial(completion_token_ids, tokenizer_and_limit(tokenizer.path, at.run)[0])
        counts: Counter[str] = Counter()
        rows = pair_gold_over_own(
            read_rows(Problem, problems.path), read_rows(Sample, samples.path), render, max_tokens, counts
        )
        kept = write_rows(Pair, attempt / PAIRS_FILE, rows)
        dropped = {reason: n for reason, n in counts.items() if reason not in ("samples", "kept", *NOTES)}
        if not kept and kind == "pair":
            raise _nothing_left(counts["samples"], dropped)
        write_json(attempt / SELECTION, {"samples": counts["samples"], "kept": kept} | dropped)
        write_json(attempt / NOTES_FILE, {note: counts[note] for note in NOTES})
        return Outcome(counts["samples"], kept, dropped, said=counted(kept, "pair") + and_left_out(dropped))

    return at.run.execute(stage, work)


def write_pairs(
    reading: Reading,
    folder: Path,
    held_out: Mapping[str, Path],
    rules: Rules,
    fits: Callable[[Pair], bool],
    wanted: Callable[[Pair], bool] = lambda _: True,
) -> tuple[Tally, Counter[str]]:
    """Write the pairs of a data set to `pairs.parquet` in `folder`, and notices to `data.json`.

    Args:
        held_out: Parquet files of problems whose prompts no pair may repeat, by name.
        rules: what counts as repeating. Pairs are not compared with each other: a prompt may have several.
        fits: whether a pair that repeats nothing is written.
        wanted: whether a pair is considered at all.

    Returns:
        The tally of reading, and the number of pairs left out as repetitions, by reason.
    """
    tally, left_out = Tally(), Counter[str]()
    scratch = folder / ".scratch"
    scratch.mkdir()
    with closing(Overlaps(rules, scratch, held_out)) as overlaps:
        pairs = filter(wanted, read_pairs(reading, tally))
        apart = (pair for pair in pairs if not overlaps.leave_out(pair.problem_id, pair.messages, left_out))
        write_rows(Pair, folder / PAIRS_FILE, filter(fits, apart))
        write_notes(folder / DATA, tally, overlaps.contaminated, overlaps.shown())
    shutil.rmtree(scratch)
    return tally, left_out


def _no_pair(stage: str, counts: Counter[str], answers: Counter[str], dropped: dict[str, int]) -> NothingKeptError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in (dropped | dict(answers)).items() if n)
    what = f"Of {counted(counts['problems'], 'prompt')} none has a pair to learn from ({reasons})."
    nothing = "Nothing was trained; answers and scores are kept."
    if counts["kept"]:
        return NothingKeptError(what, nothing, "Give more prompts, or lower held_out_pairs.")
    if counts["too few"] > counts["tie"]:
        return NothingKeptError(
            what,
            nothing,
            f"See in the stage before {stage} why answers have no scores, or raise generate.max_tokens if they were "
            "truncated.",
        )
    return NothingKeptError(
        f"{what} The judge always gives the same score.",
        nothing,
        "Use a judge that tells answers apart (a stronger model, another reward.judge.rubric, more "
        "reward.judge.opinions), more generate.samples at a higher generate.temperature, or lower --iterations by one "
        "if the answers no longer differ.",
    )


def _no_label(stage: str, counts: Counter[str], _: Counter[str], dropped: dict[str, int]) -> NothingKeptError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
    what = (
        f"Of {counted(counts['compared'], 'comparison')} none is a pair to learn from{f' ({reasons})' * bool(reasons)}."
    )
    nothing = "Nothing was trained; answers and labels are kept."
    if counts["kept"]:
        return NothingKeptError(what, nothing, "Give more prompts, or lower held_out_pairs.")
    if not counts["compared"]:
        return NothingKeptError(
            f"{what} No prompt has two finished answers that differ.",
            nothing,
            "Raise generate.max_tokens if they were cut off, or answers if they are the same.",
        )
    if counts["undecided"] > counts["no label"]:
        return NothingKeptError(
            f"{what} The labeler hardly prefers any answer.",
            nothing,
            "Lower undecided, set a lower labeler.clamp or none, or use another labeler.",
        )
    return NothingKeptError(what, nothing, f"See in the stage before {stage} why there are no labels.")


def all_repeat(left_out: Counter[str], rows: str) -> NothingKeptError:
    """The error if all rows were left out because they repeat held-out prompts."""
    return NothingKeptError(
        f"All {left_out.total():,} {rows} repeat held-out prompts, so nothing is left to train on.",
        what_next=f"Give other {rows} or other held-out files, or set --overlap.contaminated keep.",
    )


def _nothing_left(samples: int, dropped: dict[str, int]) -> NothingKeptError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
    return NothingKeptError(
        f"None of the policy's {samples:,} answers differs from its gold answer ({reasons}), so another iteration has "
        "nothing to learn.",
        "Nothing was trained; the samples are kept.",
        "If most are equal, the policy already writes the gold answers: lower --iterations by one, or give other "
        "prompts. If most are empty, check the template and the gold answers.",
    )
