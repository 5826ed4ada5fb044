"""SFT and DPO on stub programs: what is trained on, what is left out and counted."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data import arithmetic
from data.prepare.problems import split_of
from data.rows import Example, Pair, problem_id
from data.storage import read_rows
from flows import dpo, sft
from tasks.datasets.select import NothingKeptError
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import OnDrift, Status
from tests.flows.conftest import small

pytestmark = pytest.mark.usefixtures("stubs")
LONG = "word " * 2000
SETS = {"train": "pairs.parquet", "validation": "validation.parquet", "test": "test.parquet"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def selection(stage: Path) -> dict[str, int]:
    return dict(json.loads((stage / "selection.json").read_text()))


def test_sft_trains_once_on_the_gold_answers(tmp_path):
    config = sft.SFT.model_validate(small(tmp_path))
    summary = run_loop("SFT", sft.loop, config, OnDrift.REFUSE)
    assert (summary["best_iteration"], summary["measure"]) == (1, "loss")
    assert re.match("SFT lowered the test loss per token of gold answers from .*, n = 60", summary["findings"][0])
    assert "is the new champion: against base, loss per token: -" in summary["champion"]
    examples = list(read_rows(Example, config.directory / "iter-1" / "examples" / "examples.parquet"))
    assert len(examples) == 100 and all("####" in e.completion and e.token_ids is None for e in examples)
    assert selection(config.directory / "iter-1" / "examples") == {"samples": 100, "kept": 100}
    assert {p.status for p in plan_loop(sft.loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}


def test_sft_leaves_out_and_counts_what_is_longer_than_the_context(tmp_path):
    held_out = [{"question": f"{n} + 1?", "answer": str(n + 1)} for n in range(40)]
    rows = [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": LONG}]
    files = {
        "problems": write(tmp_path / "train.jsonl", rows),
        "validation": write(tmp_path / "validation.jsonl", held_out[:20]),
        "test": write(tmp_path / "test.jsonl", held_out[20:]),
    }
    config = sft.SFT.model_validate(small(tmp_path) | files)
    run_loop("SFT", sft.loop, config, OnDrift.REFUSE)
    assert selection(config.directory / "iter-1" / "examples") == {"samples": 2, "kept": 1, "too_long": 1}
    write(tmp_path / "train.jsonl", rows[1:])
    with pytest.raises(NothingKeptError, match="No row fits the model's context of 1,024 tokens"):
        run_loop("SFT", sft.loop, config.model_copy(update={"run": "long"}), OnDrift.REFUSE)


def test_dpo_measures_the_reference_before_it_trains_and_starts_from_the_same_policy(tmp_path):
    held_out = next(p for p in arithmetic.embedded_problems(0) if p.split == "test").messages[0]["content"]
    rows = [{"asked": f"{{{{name}}}} {n}?", "chosen": "yes", "rejected": "no"} for n in range(60)]
    rows += [{"asked": "long", "chosen": "yes", "rejected": LONG}, {"asked": "same", "chosen": "a", "rejected": "a"}]
    rows += [{"asked": f"{held_out} Think.", "chosen": "yes", "rejected": "no"}]
    rows += [{"asked": "Name a color.", "chosen": "yes", "rejected": "no"}]
    bench = write(tmp_path / "bench.jsonl", [{"turns": ["Name a color."]}])
    told = {"pairs_columns": {"prompt": "asked"}, "placeholders": {"name": "Ada"}, "overlap": {"held_out": [bench]}}
    config = dpo.DPO.model_validate(small(tmp_path) | {"pairs": write(tmp_path / "pairs.jsonl", rows)} | told)
    run_loop("DPO", dpo.loop, config, OnDrift.REFUSE)
    folder = config.directory / "iter-1"
    asked = [f"Ada {n}?" for n in range(60)]
    splits = {
        split: [a for a in asked if split_of(problem_id([{"role": "user", "content": a}])) == split] for split in SETS
    }
    sizes = {"kept": len(splits["train"]), "validation": len(splits["validation"]), "test": len(splits["test"])}
    counts = {"samples": 64, **sizes, "equal_sides": 1, "too_long": 1, "contaminated": 2}
    assert selection(folder / "pairs") == counts
    for split, file in SETS.items():
        pairs = list(read_rows(Pair, folder / "pairs" / file))
        assert [p.messages[0]["content"] for p in pairs] == splits[split]
    noticed = json.loads((folder / "pairs" / "data.json").read_text())
    repeats = {shown["repeats"]: shown["source"] for shown in noticed["repeated"]}
    assert (noticed["contaminated"], repeats) == (2, {held_out: "arithmetic", "Name a color.": "bench.jsonl"})
    inputs = {
        stage: json.loads((folder / stage / "manifest.json").read_text())["inputs"] for stage in ("reference", "train")
    }
    told = json.loads((config.directory / "problems" / "manifest.json").read_text())
    assert "pairs" not in told["inputs"]  # other pairs leave the problems as they are
    assert inputs["reference"]["policy"] == inputs["train"]["start"]
    assert inputs["reference"]["pairs_current"] == inputs["train"]["pairs_current"]
    report = (config.directory / "report.html").read_text()
    assert "reward margin" in report
    assert re.search(rf"policy prefers the chosen answer in .* of n.=.{sizes['test']} pairs", report)
    assert "Contaminated, " in report
