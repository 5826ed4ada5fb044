"""The stage that prepares a user's pairs: the training pairs and the held-out sets."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data.files import write_json
from data.prepare.overlap import Rules
from data.prepare.preferences import is_held_out, read_pairs
from data.prepare.problems import split_of
from data.prepare.reading import Reading, Tally
from data.prepare.sources import DataFileError, is_here, named_splits
from data.prepare.splits import HELD_OUT
from data.render import completion_token_ids, judged_token_ids, prompt_token_ids
from data.rows import Pair, Problem, Split
from data.storage import RowWriter
from data.wording import and_left_out, counted
from tasks.datasets.inputs import dataset_artifact, dataset_bytes, expected_rows
from tasks.datasets.pairs import PAIRS_FILE, all_repeat, write_pairs
from tasks.datasets.row_length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.datasets.select import SELECTION
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 3  # a NaN is a missing value; one of several splits of training has to be chosen
VALIDATED_AND_TESTED: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class PairSets:
    """Which pairs are trained on, and which are held out.

    Attributes:
        training: the data set of pairs to train on.
        names: the held-out sets.
        given: the held-out sets that are separate data sets, each with the split that it is read as.
        set_of: maps the id of a prompt of `training` to the set that it is held out for; None: it is trained on.
        share: expected share of the prompts of `training` in each set that is not given.
        rules: which training pairs are left out because they repeat held-out prompts.
    """

    training: Reading
    names: Sequence[str]
    given: Mapping[str, tuple[Reading, Split]]
    set_of: Callable[[str], str | None]
    share: float
    rules: Rules = field(default_factory=Rules)

    def wanted(self, pair: Pair) -> bool:
        """Whether a pair of `training` is trained on."""
        return self._set_of(pair) is None

    def unseen(self) -> Iterator[tuple[str, Pair]]:
        """Yield the pairs of all held-out sets, each with the name of its set."""
        if len(self.given) < len(self.names):
            for pair in read_pairs(self.training, Tally()):
                if name := self._set_of(pair):
                    yield name, pair
        for name, (reading, split) in self.given.items():
            yield from ((name, pair) for pair in read_pairs(reading, Tally(), split))

    def expected(self, name: str) -> int:
        """Expected number of pairs in a held-out set, for the dry run."""
        if name in self.given:
            return expected_rows(self.given[name][0].source, self.given[name][1])
        return int(self.share * expected_rows(self.training.source, "train"))

    def _set_of(self, pair: Pair) -> str | None:
        name = self.set_of(pair.problem_id)
        return None if name in self.given else name


def measured_once(training: Reading, validation: Reading | None, share: float, rules: Rules) -> PairSets:
    """One held-out set, `held_out`: a separate data set, or a share of the prompts by their hash."""
    given: dict[str, tuple[Reading, Split]] = {HELD_OUT: (validation, "validation")} if validation else {}
    return PairSets(
        training, (HELD_OUT,), given, lambda identity: HELD_OUT if is_held_out(identity, share) else None, share, rules
    )


def validated_and_tested(training: Reading, validation: Reading | None, test: Reading | None, rules: Rules) -> PairSets:
    """Validation and test: separate data sets, files of that name, or a tenth of the prompts each, by their hash.

    Loops on gold answers hold out the same tenth, so training after SFT never uses what SFT tested on.
    """
    named = named_splits(training.source) if is_here(training.source) else frozenset[Split]()
    own = {"validation": validation or training, "test": test or training}
    apart = {"validation": validation is not None, "test": test is not None}
    given: dict[str, tuple[Reading, Split]] = {
        name: (own[name], name) for name in VALIDATED_AND_TESTED if apart[name] or name in named
    }

    def set_of(identity: str) -> str | None:
        split = split_of(identity)
        return None if split == "train" else split

    return PairSets(training, VALIDATED_AND_TESTED, given, set_of, 0.1, rules)


def check_pair_sets(sets: PairSets) -> None:
    """Read all pairs, and check that the training set and every held-out set have some.

    Raises:
        DataFileError: see `data.prepare.preferences.read_pairs`; or a set is empty.
    """
    found = Counter(name for name, _ in sets.unseen())
    counts = {name: found[name] for name in sets.names}
    training = sum(map(sets.wanted, read_pairs(sets.training, Tally())))
    if training and all(counts.values()):
        return
    taken = training + sum(count for name, count in counts.items() if name not in sets.given)
    held_out = " and ".join(f"{count:,} are {_called(name)}" for name, count in counts.items())
    settings = " and ".join(_flag(name) for name in sets.names)
    change = f"change --held-out ({sets.share:g}), " if HELD_OUT in sets.names else ""
    raise DataFileError(
        f"{sets.training.source}: of its {taken:,} pairs {held_out}, by the hash of their prompts, and {training:,} "
        "are left to train on; each set needs some.",
        what_next=f"Give more pairs, {change}or give held-out pairs with {settings}.",
    )


def prepare_pair_sets(
    at: Place,
    sets: PairSets,
    policy: Artifact,
    length: Callable[[object, Pair], int],
    problems: Mapping[str, Artifact],
) -> Result:
    """Write training pairs to `pairs.parquet`, each held-out set to `<set>.parquet`, counts to `selection.json`.

    A pair with a side that, with the prompt, exceeds the policy's context is left out and counted. So is a training
    pair whose prompt repeats held-out ones. Notices about the data are in `data.json`.

    Args:
        length: tokens of a pair's prompt with its longer side.
        problems: sets of problems whose prompts no training pair may repeat either.

    Raises:
        DataFileError: see `data.prepare.preferences.read_pairs`.
        NothingKeptError: one of the sets has no pair left.
    """
    inputs = {"file": dataset_artifact(sets.training.source, at.run.planning), "policy": policy, **problems}
    for known, (reading, _) in sets.given.items():
        inputs[f"pairs_{known}"] = dataset_artifact(reading.source, at.run.planning)
    settings = {"drop": sets.training.drop, "overlap": asdict(sets.rules)}
    told: dict[str, object] = {"format": sets.training.format, "columns": sets.training.columns}
    told |= {"placeholders": sets.training.placeholders, "reasoning": sets.training.reasoning}
    settings |= {key: value for key, value in told.items() if value}
    settings |= {"held_out": {known: None if known in sets.given else sets.share for known in sets.names}}
    estimate = Estimate(disk_bytes=3 * dataset_bytes(sets.training.source) + 1_000_000)
    expected = {f"{known}.parquet": sets.expected(known) for known in sets.names}
    expected |= {PAIRS_FILE: expected_rows(sets.training.source, "train")}
    stage = Stage(at.stage("pairs"), VERSION, settings | at.run.in_front, inputs, estimate=estimate, expected=expected)

    def work(attempt: Path) -> Outcome:
        tokenizer, limit = tokenizer_and_limit(policy.path, at.run)
        counts = {known: Counter[str]() for known in (PAIRS_FILE, *sets.names)}

        def fits(pair: Pair, kind: str = PAIRS_FILE) -> bool:
            short = length(tokenizer, pair) <= limit.tokens
            counts[kind]["kept" if short else "too_long"] += 1
            return short

        prompts = {known: attempt / f".{known}-prompts.parquet" for known in sets.names}
        with ExitStack() as stack:
            pairs = {name: stack.enter_context(RowWriter(Pair, attempt / f"{name}.parquet")) for name in sets.names}
            asked = {name: stack.enter_context(RowWriter(Problem, file)) for name, file in prompts.items()}
            for known, pair in sets.unseen():
                if fits(pair, known):
                    pairs[known].write(pair)
                if pair.index == 0:  # the first with its prompt
                    asked[known].write(Problem(pair.problem_id, pair.messages, None, None, pair.chosen_source, known))
        apart = {known: artifact.path for known, artifact in problems.items()} | {
            f"held-out pairs ({known})" if known in problems else known: file for known, file in prompts.items()
        }
        tally, left_out = write_pairs(sets.training, attempt, apart, sets.rules, fits, sets.wanted)
        for file in prompts.values():
            file.unlink()
        if not counts[PAIRS_FILE].total():
            raise all_repeat(left_out, "pairs")
        if short := next((found for found in counts.values() if not found["kept"]), None):
            raise nothing_fits(short.total(), limit)
        dropped = dict(tally.dropped + left_out)
        dropped |= report_too_long(sum(counts.values(), Counter[str]()), limit)
        held_out = {known: counts[known]["kept"] for known in sets.names}
        kept = counts[PAIRS_FILE]["kept"]
        write_json(attempt / SELECTION, {"samples": tally.rows, "kept": kept, **held_out} | dropped)
        said = ", ".join(
            [f"{counted(kept, 'pair')} to train on", *(f"{n:,} {_called(s)}" for s, n in held_out.items())]
        )
        return Outcome(tally.rows, kept + sum(held_out.values()), dropped, said=said + and_left_out(dropped))

    return at.run.execute(stage, work)


def answered_length(tokenizer: object, pair: Pair) -> int:
    """Tokens of the prompt and the longer side, as a policy is trained on them."""
    sides = (len(completion_token_ids(tokenizer, side)) for side in (pair.chosen, pair.rejected))
    return len(prompt_token_ids(tokenizer, pair.messages)) + max(sides)


def judged_length(tokenizer: object, pair: Pair) -> int:
    """Tokens of the prompt with the longer side, as a reward model reads them."""
    sides = (judged_token_ids(tokenizer, pair.messages, text) for text in (pair.chosen, pair.rejected))
    return max(len(prompt) + len(answer) for prompt, answer in sides)


def _called(name: str) -> str:
    return "held out" if name == HELD_OUT else f"held out for {name}"


def _flag(name: str) -> str:
    return "--validation-pairs" if name == HELD_OUT else f"--{name}-pairs"
