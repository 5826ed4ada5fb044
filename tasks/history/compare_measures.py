"""Two runs side by side by measures without verified answers: which can be compared, and how they differ by row."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.measures import ACCURACY, LOSS, MEASURES, SAMPLED_ACCURACY, WIN_RATE, Measure, difference, estimate
from data.metrics import Interval
from data.rows import MeasuredRow
from tasks.history.runs import History, iteration_of
from tasks.policies.model_folder import same_tokenizer
from tasks.rollouts.measured import Measured, load_measured
from tasks.stage.run import Result

WHY_NOT = {
    "pair_accuracy": "each run measures it against its own base, so the values of two runs are not comparable",
    "discriminator_accuracy": "each run's opponent is its own policy of the previous iteration",
    "own_pair_accuracy": "each run judges answers of its own",
    "own_pair_margin": "each run judges answers of its own",
    "own_pairs_right": "each run judges answers of its own",
    "proxy": "each run optimizes a reward model of its own",
}
BASE = Path("base") / "policy"  # whose tokenizer all policies of a run share


@dataclass(frozen=True)
class RowsCompared:
    """One measure of two policies on the same held-out rows, second minus first."""

    set_name: str
    label: str
    measure: Measure
    rows: int
    left_out: int
    first: Interval
    second: Interval
    difference: Interval


@dataclass(frozen=True)
class Candidate:
    """A measure that both runs have, before it is known whether its rows are the same."""

    set_name: str
    label: str
    measure: Measure
    first: list[MeasuredRow]
    second: list[MeasuredRow]

    @property
    def shared(self) -> set[tuple[str, int]]:
        return _keys(self.first) & _keys(self.second)

    def differing(self) -> str | None:
        """Return how the held-out rows differ, as part of a sentence; None if they are the same."""
        one, two = _keys(self.first), _keys(self.second)
        if one == two:
            return None
        shared = f"they share {len(one & two):,}" if one & two else "they have none in common"
        return f"of the {len(one):,} and {len(two):,} {self.measure.rows} of {self.set_name} {shared}"


def candidates(first: History, second: History, sets: Sequence[str]) -> Iterator[Candidate]:
    """Yield every measure that both runs have on a set, by iteration on validation, and of the best at the end."""
    for set_name in sets:
        for label, one, two in _both(first, second, set_name):
            there = one.estimates.get(set_name, {}).keys() & two.estimates.get(set_name, {}).keys()
            for name, measure in MEASURES.items():
                if name in there and measure not in (ACCURACY, SAMPLED_ACCURACY):
                    rows = one.rows(set_name, name), two.rows(set_name, name)
                    yield Candidate(set_name, label, measure, *rows)


def refusal(candidate: Candidate, first: History, second: History) -> str | None:
    """Return why a measure cannot be compared across these two runs, as a sentence; None if it can."""
    measure = candidate.measure
    if not measure.across_runs:
        return f"{measure.label.capitalize()} is not compared: {WHY_NOT[measure.name]}."
    if measure == LOSS and not same_tokenizer(*(history.directory / BASE for history in (first, second))):
        return (
            "Loss per token is not compared: the tokenizers of the two runs' policies differ or no longer exist, so "
            "their tokens are not comparable."
        )
    if measure == WIN_RATE and (apart := _judged_apart(candidate, first, second)):
        return f"Win rate is not compared on {candidate.set_name}: the two runs differ in the {apart}."
    if not candidate.shared:
        return f"{measure.label.capitalize()} is not compared: {candidate.differing()}."
    if _weights(candidate.first, candidate.shared) != _weights(candidate.second, candidate.shared):
        return (
            f"{measure.label.capitalize()} is not compared on {candidate.set_name}: the two runs render or truncate "
            f"the same {measure.rows} differently, so they differ in length."
        )
    return None


def compare_rows(candidate: Candidate, seed: int) -> RowsCompared:
    """Return both values and their paired difference, on the rows that both have."""
    shared = candidate.shared
    one, two = ([row for row in rows if _key(row) in shared] for rows in (candidate.first, candidate.second))
    return RowsCompared(
        set_name=candidate.set_name,
        label=candidate.label,
        measure=candidate.measure,
        rows=len(shared),
        left_out=len(candidate.first) + len(candidate.second) - 2 * len(shared),
        first=estimate(one, seed),
        second=estimate(two, seed),
        difference=difference(two, one, seed),
    )


def best_of_each(first: History, second: History) -> str:
    """The label of a comparison on the final sets."""
    bests = [history.stages["best"].manifest for history in (first, second) if "best" in history.stages]
    return "best iteration of each: " + " | ".join(str(best.config["iteration"]) for best in bests)


def _both(first: History, second: History, set_name: str) -> Iterator[tuple[str, Measured, Measured]]:
    if set_name == "validation":
        numbers = sorted(set(map(_number, first.stages)) & set(map(_number, second.stages)) - {-1})
        for number in numbers:
            yield f"iteration {number}", _of(first, f"iter-{number}/"), _of(second, f"iter-{number}/")
    else:
        yield best_of_each(first, second), _of(first, "final/best"), _of(second, "final/best")


def _of(history: History, begins: str) -> Measured:
    """Load the measures without verified answers of the stages whose names begin like that."""
    found = [stage for name, stage in history.stages.items() if name.startswith(begins)]
    kinds = [stage for stage in found if not stage.manifest.stage.endswith(("/evaluate", "final/best"))]
    return load_measured(Result(stage.path, stage) for stage in kinds)


def _judged_apart(candidate: Candidate, first: History, second: History) -> str | None:
    """Return why win rates of two runs are not comparable, if so: another judge, opponent or opponent's answers."""
    one, two = (_how_judged(history, candidate) for history in (first, second))
    return next((name for name in one if one[name] != two[name]), None)


def _how_judged(history: History, candidate: Candidate) -> dict[str, Any]:
    stage = "final/best-win_rate"
    if candidate.set_name == "validation":
        stage = f"iter-{candidate.label.removeprefix('iteration ')}/win_rate"
    manifest = history.stages[stage].manifest
    rival = manifest.config["against"][0]
    return {
        "judge": (manifest.config["judge"], manifest.inputs.get("judge")),
        "opponent": rival,
        "opponent's answers": manifest.inputs.get(
            f"{rival}_{candidate.set_name}"
        ),  # gold answers come with the prompts
    }


def _number(stage: str) -> int:
    return iteration_of(stage) if re.match(r"iter-\d+/", stage) else -1


def _key(row: MeasuredRow) -> tuple[str, int]:
    return row.problem_id, row.index


def _keys(rows: Sequence[MeasuredRow]) -> set[tuple[str, int]]:
    return {_key(row) for row in rows}


def _weights(rows: Sequence[MeasuredRow], shared: set[tuple[str, int]]) -> dict[tuple[str, int], float]:
    return {_key(row): row.weight for row in rows if _key(row) in shared}
