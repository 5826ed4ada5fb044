"""The gate to the champion: what is set side by side, and what is refused with a sentence rather than raised."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.measures import LOSS, PAIR_ACCURACY, WIN_RATE, Estimated, Measure, estimate
from data.rows import MeasuredRow
from tasks.loop.gate import measure_gate
from tasks.rollouts.measured import Measured
from tasks.stage.contract import Artifact
from tasks.stage.run import Run
from tasks.tracking.registry import Version

Rows = dict[str, tuple[float, float]]


def measured(name: str, rows: Rows) -> Measured:
    """What was measured on the test set: the value and the weight of each row."""
    found = [MeasuredRow(row, 0, *told) for row, told in rows.items()]
    if not found:
        return Measured()
    return Measured({"test": {name: Estimated(value=estimate(found, 0), rows=len(found))}}, {("test", name): found})


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The gate of a run that has these measures, against the champion in the folder `champion`."""
    monkeypatch.setattr("tasks.loop.gate.load_measured", lambda stages: next(iter(stages)))
    monkeypatch.setattr("tasks.tracking.champion.same_tokenizer", lambda one, other: True)

    def gate(measure: Measure, theirs: Rows, ours: Rows, own_run: bool = False, gone: bool = False) -> Any:
        if not gone:
            (tmp_path / "champion").mkdir()
            (tmp_path / "champion" / "config.json").write_text("{}")
        digest = "base" if own_run else "champion"
        champion = Version("model", "1", tmp_path / "champion", digest, {})
        final: Any = {"it": measured(measure.name, theirs)}, {"it": measured(measure.name, ours)}
        tracking = SimpleNamespace(reaching=nullcontext, registry=SimpleNamespace(champion=lambda name: champion))
        policies = [
            SimpleNamespace(policy=SimpleNamespace(artifact=lambda _, name=name: Artifact(tmp_path / name, name)))
            for name in ("base", "ours")
        ]
        measuring: Any = SimpleNamespace(
            run=Run(tmp_path, recorder=SimpleNamespace(tracking=tracking)),
            decides=measure,
            config=SimpleNamespace(registered="model", seed=0),
            measure=lambda *_: final[0],
        )
        return measure_gate(measuring, policies, 1, final)

    return gate


def test_win_rates_are_compared_on_the_prompts_that_could_be_judged_for_both(compare: Any) -> None:
    theirs, ours = {"a": (0.0, 1.0), "c": (0.0, 1.0)}, {"a": (0.5, 1.0), "b": (1.0, 1.0), "c": (0.5, 1.0)}
    gate = compare(WIN_RATE, theirs, ours, own_run=True)
    assert (gate.difference.value, gate.problems, gate.refused) == (0.5, 2, None)


@pytest.mark.parametrize(
    ("measure", "theirs", "ours", "own_run", "said"),
    [
        (WIN_RATE, {"a": (1.0, 1.0)}, {"b": (1.0, 1.0)}, True, "for no prompt of the test set"),
        (LOSS, {"a": (4.0, 2.0)}, {"a": (4.0, 2.0), "b": (9.0, 3.0)}, False, "different gold answers of the test set"),
        (LOSS, {}, {"a": (4.0, 2.0)}, False, "different gold answers of the test set"),
        (LOSS, {"a": (4.0, 2.0)}, {}, False, "was not measured on a test set"),
    ],
)
def test_what_was_not_measured_on_the_same_rows_is_refused(
    compare: Any, measure: Measure, theirs: Rows, ours: Rows, own_run: bool, said: str
) -> None:
    gate = compare(measure, theirs, ours, own_run)
    assert gate.difference is None
    assert said in gate.refused


@pytest.mark.parametrize("measure", [LOSS, PAIR_ACCURACY])
def test_a_champion_that_is_gone_is_said_to_be_gone(compare: Any, measure: Measure) -> None:
    assert compare(measure, {}, {"a": (1.0, 1.0)}, gone=True).figures == "its checkpoint is gone"
