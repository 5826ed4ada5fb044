"""The stages that make pairs: gold answers over the opponent's own (SPIN), or a user's file of them (DPO)."""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data.overlap import Overlaps, Rules
from data.pairing import pair_gold_over_own
from data.preferences import read_pairs
from data.reading import Reading, Tally
from data.render import completion_token_ids, prompt_token_ids
from data.rows import Pair, Problem, Sample
from data.storage import read_rows, write_rows
from models.config import Config
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.datasets import dataset_artifact
from tasks.files import write_json
from tasks.length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.problems import DATA, write_notes
from tasks.run import Result, Run
from tasks.score import SELECTION, NothingKeptError

VERSION = 2  # further formats; files are of the split in their names; answers as the template frames them
PAIRS_FILE = "pairs.parquet"
NOTES, NOTES_FILE = ("gold cut", "own truncated"), "pairs.json"


class PairSource(Config):
    """Where a user's pairs come from."""

    pairs: Annotated[Path, Field(description="Data set of pairs, in any known format.")]
    pairs_format: Annotated[
        str | None, Field(description="Format of the pairs, by name; none: told by the columns.")
    ] = None
    pairs_columns: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="Columns of the pairs: the format's name to the file's."),
    ]


def pair(
    run: Run, name: str, problems: Artifact, samples: Artifact, tokenizer: Artifact, max_tokens: int, expected: int
) -> Result:
    """Pair gold with own answers into `pairs.parquet`; counts by reason go to `selection.json`.

    How many kept pairs have a side that was cut at the token limit goes to `pairs.json`.

    Args:
        tokenizer: a policy whose tokenizer renders the gold answers.
        max_tokens: gold answers are cut at this length, as own answers were when they were generated.

    Raises:
        NothingKeptError: the opponent's answers all equal the gold ones, or are empty.
    """
    inputs = {"problems": problems, "samples": samples, "tokenizer": tokenizer}
    stage = Stage(
        name, VERSION, {"max_tokens": max_tokens}, inputs, estimate=Estimate(disk_bytes=expected * max_tokens * 8)
    )

    def work(attempt: Path) -> Outcome:
        render = partial(completion_token_ids, tokenizer_and_limit(tokenizer.path, run.model_code)[0])
        counts: Counter[str] = Counter()
        rows = pair_gold_over_own(
            read_rows(Problem, problems.path), read_rows(Sample, samples.path), render, max_tokens, counts
        )
        kept = write_rows(Pair, attempt / PAIRS_FILE, rows)
        dropped = {reason: n for reason, n in counts.items() if reason not in ("samples", "kept", *NOTES)}
        if not kept:
            raise _nothing_left(counts["samples"], dropped)
        write_json(attempt / SELECTION, {"samples": counts["samples"], "kept": kept} | dropped)
        write_json(attempt / NOTES_FILE, {note: counts[note] for note in NOTES})
        return Outcome(counts["samples"], kept, dropped)

    return run.execute(stage, work)


def prepare_pairs(
    run: Run, name: str, reading: Reading, policy: Artifact, held_out: Mapping[str, Artifact], rules: Rules
) -> Result:
    """Read a user's pairs into `pairs.parquet`; counts by reason go to `selection.json`.

    A pair of which one side is longer than the policy's context is dropped and counted, and so is one whose prompt
    repeats what is held out. What was noticed on the way is in `data.json`.

    Args:
        held_out: sets of problems whose prompts no pair may repeat.
        rules: what counts as repeating. Pairs are not compared with each other: a prompt may have several.

    Raises:
        DataFileError: see `data.preferences.read_pairs`.
        NothingKeptError: no pair fits.
    """
    inputs = {"file": dataset_artifact(reading.source, run.planning), "policy": policy, **held_out}
    settings = {"drop": reading.drop, "overlap": asdict(rules)}
    told: dict[str, object] = {
        "format": reading.format,
        "columns": reading.columns,
        "placeholders": reading.placeholders,
    }
    told |= {"reasoning": reading.reasoning}
    settings |= {key: value for key, value in told.items() if value}
    stage = Stage(name, VERSION, settings, inputs, estimate=Estimate(disk_bytes=1_000_000))

    def work(attempt: Path) -> Outcome:
        tokenizer, limit = tokenizer_and_limit(policy.path, run.model_code)
        counts: Counter[str] = Counter()

        def fits(pair: Pair) -> bool:
            short = _length(tokenizer, pair) <= limit.tokens
            counts["kept" if short else "too_long"] += 1
            return short

        tally, left_out = write_pairs(
            reading, attempt, {known: artifact.path for known, artifact in held_out.items()}, rules, fits
        )
        if not counts.total():
            raise all_held_out(left_out)
        dropped = tally.dropped + left_out
        dropped.update(report_too_long(counts, limit))
        if not counts["kept"]:
            raise nothing_fits(counts.total(), limit)
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": counts["kept"]} | dropped)
        return Outcome(tally.rows, counts["kept"], dict(dropped))

    return run.execute(stage, work)


def write_pairs(
    reading: Reading,
    folder: Path,
    held_out: Mapping[str, Path],
    rules: Rules,
    fits: Callable[[Pair], bool],
    wanted: Callable[[Pair], bool] = lambda _: True,
) -> tuple[Tally, Counter[str]]:
    """Write the pairs of a data set to `pairs.parquet` in `folder`, and what was noticed to `data.json`.

    Args:
        held_out: Parquet files of problems whose prompts no pair may repeat, by name.
        rules: what counts as repeating. Pairs are not compared with each other: a prompt may have several.
        fits: whether a pair that repeats nothing is written.
        wanted: whether a pair is looked at at all.

    Returns:
        What reading came to, and how many pairs were left out for what they repeat.
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


def all_held_out(left_out: Counter[str]) -> NothingKeptError:
    """The error for pairs that were all left out for what they repeat."""
    return NothingKeptError(
        f"All {left_out.total():,} pairs repeat prompts that are held out, so nothing is left to train on.",
        what_next="Give other pairs or other held-out files, or set --overlap.contaminated keep.",
    )


def _length(tokenizer: object, pair: Pair) -> int:
    """Tokens of the prompt and the longer side."""
    sides = (len(completion_token_ids(tokenizer, side)) for side in (pair.chosen, pair.rejected))
    return len(prompt_token_ids(tokenizer, pair.messages)) + max(sides)


def _nothing_left(samples: int, dropped: dict[str, int]) -> NothingKeptError:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in dropped.items())
    return NothingKeptError(
        f"None of the {samples:,} own answers differs from its gold answer ({reasons}), so there is nothing to learn "
        "from playing on.",
        "Nothing was trained; the samples are kept.",
        "If most are equal, the policy writes the gold answers already: set --iterations to one less, or give other "
        "prompts. If most are empty, look at the template and the gold answers.",
    )
