"""The measure decides: when a loop stops, which iteration is its best, and whether that becomes champion."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows import dpo, spin
from tasks.loop.loop import run_loop
from tasks.loop.measuring import MeasureError, measuring
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run
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


@pytest.mark.parametrize("row", [{"prompt": "Say {n}."}, {"instruction": "Say {n}.", "output": "It is {n}."}])
def test_dpo_wins_on_held_out_prompts_and_chats(tmp_path, row):
    make_history(tmp_path / "runs")
    pairs, rows = tmp_path / "pairs.jsonl", {"validation": 0, "test": 100}
    pairs.write_text("".join(f'{{"prompt": "{n}?", "chosen": "yes", "rejected": "no"}}\n' for n in range(400)))
    for name, start in rows.items():
        lines = (json.dumps({key: text.format(n=n) for key, text in row.items()}) for n in range(start, start + 40))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    told = small(tmp_path) | {"pairs": pairs, "measure": "win_rate", "win_rate": JUDGE}
    told |= {name: tmp_path / f"{name}.jsonl" for name in rows}
    summary = run_loop("DPO", dpo.loop, dpo.DPO.model_validate(told), OnDrift.REFUSE)
    assert summary["measure"] == "win_rate"
    assert (tmp_path / "runs" / "stub" / "final" / "best-win_rate" / "test" / "measures.json").exists()


@pytest.mark.parametrize("measure", [None, "win_rate", "pair_accuracy"])
def test_a_judge_without_prompts_is_refused_before_anything_starts(measure):
    config = dpo.DPO.model_validate({"pairs": "pairs.jsonl", "model": "a/b", "win_rate": JUDGE, "measure": measure})
    with pytest.raises(MeasureError, match="no held-out prompts for its judge") as refused:
        measuring(Run(Path("nowhere"), planning=True), config, None)
    assert "Give prompts or problems with --validation" in str(refused.value)
