"""The measure decides: when a loop stops, which iteration is its best, and whether that becomes champion."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import dpo, spin
from tasks.contract import OnDrift
from tasks.loop import run_loop
from tests.flows.conftest import make_history, make_spin, small

pytestmark = pytest.mark.usefixtures("stubs")
JUDGE = {"judge": {"endpoint": "http://localhost:9/v1", "model": "a judge"}}


def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: str, measure: str, skills: tuple[float, ...]
) -> dict[str, Any]:
    """SPIN until an iteration is no new best; its policies are as skilled as they are told to be."""
    monkeypatch.setenv("STUB_SKILLS", json.dumps(skills))
    told = {"run": run, "registry": "mine", "measure": measure, "stop": {"rule": "patience", "patience": 1}}
    if measure == "win_rate":
        told |= {"win_rate": JUDGE}
    return run_loop("SPIN", spin.loop, make_spin(tmp_path, iterations=4, **told), OnDrift.REFUSE)


@pytest.mark.parametrize("measure", ["sampled_accuracy", "loss", "win_rate"])
def test_a_loop_stops_chooses_and_moves_the_champion_by_its_measure(tmp_path, monkeypatch, measure):
    first = play(tmp_path, monkeypatch, "first", measure, (0.8, 0.4))
    assert (first["measure"], first["best_iteration"]) == (measure, 1)
    assert first["stop_reason"] == "no new best on validation for 1 iteration"
    assert not (tmp_path / "runs" / "first" / "iter-3").exists()
    assert "is the new champion: against base, " in first["champion"]
    weaker = play(tmp_path, monkeypatch, "weaker", measure, (0.5, 0.4))
    assert weaker["best_iteration"] == 1
    assert "is a challenger, not clearly better: against version 2, " in weaker["champion"]


def test_a_loop_that_only_gets_worse_keeps_its_base(tmp_path, monkeypatch):
    summary = play(tmp_path, monkeypatch, "worse", "loss", (0.1,))
    assert (summary["best_iteration"], len(summary["iterations"])) == (0, 2)
    assert "has no champion" in summary["champion"]


def test_pair_accuracy_moves_the_first_champion_and_is_refused_across_runs(tmp_path):
    make_history(tmp_path / "runs")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(f'{{"prompt": "{n}?", "chosen": "yes", "rejected": "no"}}\n' for n in range(400)))
    told = small(tmp_path) | {"registry": "mine", "pairs": pairs}
    first, second = (
        run_loop("DPO", dpo.loop, dpo.DPO.model_validate(told | {"run": name, "seed": seed}), OnDrift.REFUSE)
        for seed, name in enumerate(("first", "second"))
    )
    assert (first["measure"], first["best_iteration"]) == ("pair_accuracy", 1)
    assert "is the new champion: against base, pair accuracy minus 50.0%: " in first["champion"]
    assert "not compared with version 2: pair accuracy is measured against the base" in second["champion"]
