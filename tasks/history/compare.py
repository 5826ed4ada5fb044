"""Two runs side by side: the settings in which they differ, and their policies' results on the same rows.

This file compares the problems they solve; measures without verified answers are in
`tasks/history/compare_measures.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.metrics import Interval, Outcome, SetMetrics, bootstrap_interval, paired_difference, pass_at_k
from tasks.history.compare_measures import RowsCompared, best_of_each, candidates, compare_rows, refusal
from tasks.history.runs import History, QueryError, iteration_of
from tasks.rollouts.evaluate import coverage, load_evaluation
from tasks.stage.contract import Manifest, flatten
from tasks.stage.run import Result

SETS = ("validation", "test", "transfer")
GREEDY = "greedy pass@1"
WHERE = ("run", "runs_dir", "registry")  # settings of where a run is stored, not of what it does


@dataclass(frozen=True)
class Verified:
    """One policy on one set: the outcomes, and the metrics and manifest of the evaluation."""

    outcomes: list[Outcome]
    metrics: SetMetrics
    manifest: Manifest


@dataclass(frozen=True)
class Figure:
    """One measure of two policies, second minus first. None if a run does not have it."""

    name: str
    first: Interval | None
    second: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same problems of one set. `gained` counts those solved greedily only by the second."""

    set_name: str
    label: str
    problems: int
    left_out: int
    first: Verified
    second: Verified
    figures: list[Figure]
    gained: int
    lost: int


@dataclass(frozen=True)
class Compared:
    """Everything that two runs have in common: verified answers, further measures, and why others are not compared."""

    verified: list[Comparison]
    measures: list[RowsCompared]
    refused: list[str]

    @property
    def sets(self) -> list[str]:
        found = {c.set_name for c in self.verified} | {c.set_name for c in self.measures}
        return [name for name in SETS if name in found]


def compare_runs(first: History, second: History, wanted: str | None, common: bool) -> Compared:
    """Compare two runs by iteration on validation, and the best of each on the final sets.

    Args:
        wanted: the set to compare on; None for all that both have.
        common: if the sets differ, compare on the rows that both have.

    Raises:
        QueryError: nothing can be compared, or the held-out rows differ and `common` is not given.
    """
    sets = [wanted] if wanted else SETS
    found = [
        (name, label, *both)
        for name in sets
        for label, stage in _stages_of(name, first, second)
        if (both := _both(first, second, stage, name)) is not None
    ]
    known = [(c, refusal(c, first, second)) for c in candidates(first, second, sets)]
    measured, refused = [c for c, why in known if why is None], list(dict.fromkeys(why for _, why in known if why))
    if not found and not measured:
        raise QueryError(
            f"{first.name} and {second.name} have no finished evaluation in common{f' on {wanted}' * bool(wanted)}.",
            " ".join(refused) or "Validation is measured after every iteration, test and transfer at the end of a run.",
            "`autodidact runs` shows the progress of each.",
        )
    apart = {name: message for name, _, one, two in found if (message := _differing(name, one, two))}
    apart |= {f"{c.set_name} {c.measure.rows}": message for c in measured if (message := c.differing())}
    if apart and not common:
        raise QueryError(
            f"{first.name} and {second.name} were not measured on the same rows: {'; '.join(apart.values())}.",
            "A paired comparison needs the same rows.",
            "Add --common to compare on the rows that they share, choose a --set that is the same in both, or run one "
            "of them with the held-out rows of the other.",
        )
    seed = int(second.config.get("seed", 0))
    return Compared(
        [_comparison(name, label, one, two) for name, label, one, two in found],
        [compare_rows(candidate, seed) for candidate in measured],
        refused,
    )


def setting_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return every setting with different values in two configurations, except where a run is stored."""
    one, two = flatten(first), flatten(second)
    names = [name for name in {**one, **two} if name not in WHERE]
    pairs = [(name, str(one.get(name, "absent")), str(two.get(name, "absent"))) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def evaluation_differences(comparisons: Sequence[Comparison]) -> list[str]:
    """Return how the compared evaluations differ besides the policy, as sentences."""
    notes: dict[str, None] = {}
    for c in comparisons:
        one, two = ({"seed": m.manifest.seed, **m.manifest.config} for m in (c.first, c.second))
        for name, before, after in setting_differences(one, two):
            notes[f"they were evaluated with different settings: {name} {before} | {after}"] = None
        rows = f"problems_{c.set_name}"
        if not c.left_out and c.first.manifest.inputs[rows] != c.second.manifest.inputs[rows]:
            notes[
                f"the problems of {c.set_name} have the same ids, but their rows differ: few-shot turns, references "
                f"or sources"
            ] = None
    return list(notes)


def _stages_of(set_name: str, first: History, second: History) -> list[tuple[str, str]]:
    """Return what is compared on a set, and the stage that measured it. Every iteration measures validation."""
    if set_name == "validation":
        both = sorted(iteration_of(name) for name in first.stages.keys() & second.stages.keys() if _evaluates(name))
        return [(f"iteration {number}", f"iter-{number}/evaluate") for number in both]
    return [(best_of_each(first, second), "final/best")]


def _evaluates(stage: str) -> bool:
    return stage.startswith("iter-") and stage.endswith("/evaluate")


def _both(first: History, second: History, stage: str, set_name: str) -> tuple[Verified, Verified] | None:
    one, two = _measured(first, stage, set_name), _measured(second, stage, set_name)
    return (one, two) if one and two else None


def _measured(history: History, stage: str, set_name: str) -> Verified | None:
    """Return the result of an evaluation on a set; None if it is not finished or has no such set."""
    finished = history.stages.get(stage)
    evaluation = load_evaluation(Result(finished.path, finished)) if finished else None
    if finished is None or evaluation is None or set_name not in evaluation.metrics:
        return None
    return Verified(list(evaluation.outcomes[set_name]), evaluation.metrics[set_name], finished.manifest)


def _differing(set_name: str, first: Verified, second: Verified) -> str | None:
    one, two = ({o.problem_id for o in m.outcomes} for m in (first, second))
    if one == two:
        return None
    if not one & two:
        raise QueryError(
            f"the {len(one):,} and {len(two):,} problems of {set_name} have none in common, so there is nothing to "
            "compare.",
            what_next="Choose another --set, or run one of the two with the problems of the other.",
        )
    return f"of the {len(one):,} and {len(two):,} problems of {set_name} they share {len(one & two):,}"


def _comparison(set_name: str, label: str, first: Verified, second: Verified) -> Comparison:
    there = {o.problem_id for o in second.outcomes}
    before = [o for o in first.outcomes if o.problem_id in there]
    by_id = {o.problem_id: o for o in second.outcomes}
    after = [by_id[o.problem_id] for o in before]
    gained, lost = coverage(after, before)
    return Comparison(
        set_name=set_name,
        label=label,
        problems=len(before),
        left_out=len(first.outcomes) + len(second.outcomes) - 2 * len(before),
        first=first,
        second=second,
        figures=_figures(first, second, before, after),
        gained=gained,
        lost=lost,
    )


def _figures(first: Verified, second: Verified, before: list[Outcome], after: list[Outcome]) -> list[Figure]:
    seeds = first.manifest.seed, second.manifest.seed
    ours, theirs = _values(after, second.metrics), _values(before, first.metrics)
    figures = []
    for name in {**theirs, **ours}:
        one = bootstrap_interval(theirs[name], seeds[0]) if name in theirs else None
        two = bootstrap_interval(ours[name], seeds[1]) if name in ours else None
        difference = None
        if name == GREEDY:
            difference = paired_difference(after, before, seeds[1])
        elif one and two:
            pairs = zip(ours[name], theirs[name], strict=True)
            difference = bootstrap_interval([a - b for a, b in pairs], seeds[1])
        figures.append(Figure(name, one, two, difference))
    return figures


def _values(outcomes: list[Outcome], metrics: SetMetrics) -> dict[str, list[float]]:
    """Return each measure's value per problem."""
    values = {GREEDY: [float(o.greedy_correct) for o in outcomes]}
    values |= {f"pass@{k}": [pass_at_k(o.samples, o.correct, k) for o in outcomes] for k in metrics.pass_at}
    return values | {f"maj@{k}": [o.majority_correct for o in outcomes] for k in metrics.majority_at}
