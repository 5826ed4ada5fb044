"""Measurements of a policy on held-out rows: the files that stages write, and how they are read.

A stage keeps in `<set>/measures.json` an estimate of each measure, and in `<set>/<measure>.parquet` the value of every
row, so that later comparisons are paired. The output of `evaluate` is read as the measures of accuracy.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.files import write_json
from data.measures import Estimated, difference, estimate, shared
from data.metrics import Outcome, SetMetrics
from data.rows import MeasuredRow
from data.storage import read_rows, write_rows
from tasks.rollouts.evaluate import load_evaluation
from tasks.stage.run import Result

ESTIMATES = "measures.json"
NOBODY: Mapping[str, "Measured"] = {}


@dataclass(frozen=True)
class Measured:
    """Measurements of one policy: by set, then by measure."""

    estimates: Mapping[str, Mapping[str, Estimated]] = field(default_factory=dict)
    _rows: Mapping[tuple[str, str], Path | Sequence[MeasuredRow]] = field(default_factory=dict)

    def get(self, set_name: str, measure: str) -> Estimated | None:
        return self.estimates.get(set_name, {}).get(measure)

    def rows(self, set_name: str, measure: str) -> list[MeasuredRow]:
        """Return the value of every row.

        Raises:
            KeyError: this measure was not taken on this set.
        """
        found = self._rows[set_name, measure]
        return list(read_rows(MeasuredRow, found)) if isinstance(found, Path) else list(found)


def write_measured(
    folder: Path,
    found: Mapping[str, Sequence[MeasuredRow]],
    seed: int,
    against: Mapping[str, Measured] = NOBODY,
    details: Mapping[str, Mapping[str, float]] | None = None,
    partly: bool = False,
) -> dict[str, Estimated]:
    """Write the measures of one set into its folder in a stage. A measure without rows is left out.

    Args:
        folder: of the stage's attempt, named after the set.
        found: the value of every row, by measure.
        seed: of the bootstrap.
        against: earlier measurements by policy name, compared if they have the same measure.
        details: further metrics by measure.
        partly: whether either policy may lack a row; those that both have are compared.
    """
    folder.mkdir(parents=True, exist_ok=True)
    estimates = {}
    for name, rows in found.items():
        if not rows:
            continue
        write_rows(MeasuredRow, folder / f"{name}.parquet", rows)
        theirs = {other: of.rows(folder.name, name) for other, of in against.items() if of.get(folder.name, name)}
        pairs = {other: shared(rows, those) if partly else (rows, those) for other, those in theirs.items()}
        differences = {other: difference(*pair, seed) for other, pair in pairs.items() if pair[0]}
        estimates[name] = Estimated(
            value=estimate(rows, seed), rows=len(rows), against=differences, details=dict((details or {}).get(name, {}))
        )
    write_json(folder / ESTIMATES, {name: value.model_dump() for name, value in estimates.items()})
    return estimates


def load_measured(stages: Iterable[Result]) -> Measured:
    """Merge the measurements of finished stages. Stages that measure nothing, or are only planned, add nothing."""
    estimates: dict[str, dict[str, Estimated]] = {}
    rows: dict[tuple[str, str], Path | Sequence[MeasuredRow]] = {}
    for stage in stages:
        if stage.finished is None:
            continue
        for file in sorted(stage.path.glob(f"*/{ESTIMATES}")):
            told = {name: Estimated.model_validate(value) for name, value in json.loads(file.read_text()).items()}
            estimates.setdefault(file.parent.name, {}).update(told)
            rows |= {(file.parent.name, name): file.with_name(f"{name}.parquet") for name in told}
        evaluation = load_evaluation(stage)
        assert evaluation is not None
        for name, metrics in evaluation.metrics.items():
            outcomes = evaluation.outcomes[name]
            estimates.setdefault(name, {}).update(_accuracies(metrics))
            rows[name, "accuracy"] = [MeasuredRow(o.problem_id, 0, float(o.greedy_correct)) for o in outcomes]
            rows[name, "sampled_accuracy"] = [MeasuredRow(o.problem_id, 0, _share(o)) for o in outcomes]
    return Measured(estimates, rows)


def _accuracies(metrics: SetMetrics) -> dict[str, Estimated]:
    found = {"accuracy": Estimated(value=metrics.greedy, rows=metrics.problems, against=metrics.against)}
    if 1 in metrics.pass_at:
        found["sampled_accuracy"] = Estimated(value=metrics.pass_at[1], rows=metrics.problems)
    return found


def _share(outcome: Outcome) -> float:
    return outcome.correct / outcome.samples if outcome.samples else 0.0
