"""The stage that prepares pairs for a reward model: those to train on, and those held out to measure it."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from data.overlap import Rules
from data.preferences import is_held_out, read_pairs
from data.reading import Reading, Tally
from data.render import judged_token_ids
from data.rows import Pair, Problem
from data.sources import DataFileError
from data.splits import HELD_OUT
from data.storage import RowWriter
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.datasets import dataset_artifact, dataset_bytes
from tasks.files import write_json
from tasks.length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.pairs import all_held_out, write_pairs
from tasks.run import Result, Run
from tasks.score import SELECTION

VERSION = 2  # further formats; files are of the split in their names; answers as the template frames them
HELD_OUT_FILE = f"{HELD_OUT}.parquet"


@dataclass(frozen=True)
class HoldingOut:
    """Which pairs are held out.

    Attributes:
        training: the data set of pairs to train on.
        validation: a data set of pairs to measure on; None: a share of the prompts of `training`, by their hash.
        share: that share.
        rules: which training pairs are left out for what held-out prompts say.
    """

    training: Reading
    validation: Reading | None
    share: float
    rules: Rules

    def wanted(self, pair: Pair) -> bool:
        """Whether a pair of `training` is one to train on."""
        return self.validation is not None or not is_held_out(pair.problem_id, self.share)

    def held_out(self) -> Iterator[Pair]:
        if self.validation is not None:
            yield from read_pairs(self.validation, Tally(), "validation")
        else:
            yield from (pair for pair in read_pairs(self.training, Tally()) if not self.wanted(pair))


def check_pairs(parts: HoldingOut) -> None:
    """Read all pairs, and see that there are some of both kinds.

    Raises:
        DataFileError: see `data.preferences.read_pairs`; or no pair is held out, or none is left to train on.
    """
    held_out = sum(1 for _ in parts.held_out())
    training = sum(map(parts.wanted, read_pairs(parts.training, Tally())))
    if not held_out or not training:
        raise DataFileError(
            f"{parts.training.source}: of its {held_out + training:,} pairs {held_out:,} are held out, by the hash of "
            f"their prompts, and {training:,} are left to train on; both need some.",
            what_next=f"Give more pairs, change --held_out ({parts.share:g}), or give pairs to measure on with "
            "--validation_pairs.",
        )


def prepare_reward_pairs(run: Run, name: str, parts: HoldingOut, policy: Artifact) -> Result:
    """Write pairs to train on to `pairs.parquet`, held-out ones to `held_out.parquet`, counts to `selection.json`.

    A pair of which one side is longer with its prompt than the policy's context is left out of either and counted.

    Raises:
        NothingKeptError: no pair is left of one of them.
    """
    inputs = {"file": dataset_artifact(parts.training.source, run.planning), "policy": policy}
    settings = {"drop": parts.training.drop, "overlap": asdict(parts.rules)}
    told: dict[str, object] = {"format": parts.training.format, "columns": parts.training.columns}
    told |= {"placeholders": parts.training.placeholders, "reasoning": parts.training.reasoning}
    settings |= {key: value for key, value in told.items() if value}
    if parts.validation is None:
        settings["held_out"] = parts.share
    else:
        inputs["validation"] = dataset_artifact(parts.validation.source, run.planning)
    estimate = Estimate(disk_bytes=3 * dataset_bytes(parts.training.source) + 1_000_000)
    stage = Stage(name, VERSION, settings, inputs, estimate=estimate)

    def work(attempt: Path) -> Outcome:
        tokenizer, limit = tokenizer_and_limit(policy.path, run.model_code)
        counts: dict[str, Counter[str]] = {"training": Counter(), HELD_OUT: Counter()}

        def fits(kind: str) -> Callable[[Pair], bool]:
            def short(pair: Pair) -> bool:
                found = _length(tokenizer, pair) <= limit.tokens
                counts[kind]["kept" if found else "too_long"] += 1
                return found

            return short

        prompts = attempt / ".prompts.parquet"
        with RowWriter(Pair, attempt / HELD_OUT_FILE) as pairs, RowWriter(Problem, prompts) as problems:
            for pair in parts.held_out():
                if fits(HELD_OUT)(pair):
                    pairs.write(pair)
                if pair.index == 0:  # the first of its prompt
                    source = pair.chosen_source
                    problems.write(Problem(pair.problem_id, pair.messages, None, None, source, "validation"))
        training = fits("training")
        tally, left_out = write_pairs(parts.training, attempt, {HELD_OUT: prompts}, parts.rules, training, parts.wanted)
        if not counts["training"].total():
            raise all_held_out(left_out)
        if short := next((c for c in counts.values() if not c["kept"]), None):
            raise nothing_fits(short.total(), limit)
        dropped = dict(tally.dropped + left_out)
        dropped |= report_too_long(counts["training"] + counts[HELD_OUT], limit)
        kept, held_out = counts["training"]["kept"], counts[HELD_OUT]["kept"]
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept, HELD_OUT: held_out} | dropped)
        return Outcome(tally.rows, kept + held_out, dropped)

    return run.execute(stage, work)


def _length(tokenizer: object, pair: Pair) -> int:
    """Tokens of the prompt with the longer side."""
    sides = (judged_token_ids(tokenizer, pair.messages, text) for text in (pair.chosen, pair.rejected))
    return max(len(prompt) + len(answer) for prompt, answer in sides)
