"""ReST-EM on programs: fixed candidates, each judged in the sandbox, and the real trainer on those that pass."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import tasks.rollouts.generate
from data.rows import Example, Problem, Sample, Score
from data.storage import read_rows
from flows.rest_em import RestEM, loop
from tasks.loop.loop import run_loop
from tasks.stage.contract import OnDrift, load_finished
from tests.e2e.programs import use_forks

# What each problem is answered: three right programs, and four that only look like one.
CANDIDATES = {
    "right": "def add_{n}(x):\n    return x + {n}",
    "right in another way": "def add_{n}(x):\n    return {n} + x",
    "right and fenced": "So:\n```python\ndef add_{n}(x):\n    return x - -{n}\n```",
    "wrong": "def add_{n}(x):\n    return x",
    "no program": "I add {n}.",
    "says that it passed": "print('1 passed')\nraise SystemExit(0)",
    "equals everything": (
        "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\n"
        "def add_{n}(x):\n    return Any()"
    ),
}
NUMBERS = range(1, 41)
RIGHT = ("right", "right in another way", "right and fenced")
VERDICTS = {**dict.fromkeys(RIGHT, "correct"), "equals everything": "error"}  # which stops no run


@pytest.mark.skipif(not shutil.which("bwrap"), reason="there is no bubblewrap: no loop learned from programs")
def test_a_loop_learns_from_the_programs_that_pass_their_tests(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Write add_{n}, which adds {n}."
    rows = [{"text": text.format(n=n), "code": "", "test_list": [f"assert add_{n}(1) == {n + 1}"]} for n in NUMBERS]
    problems, candidates = tmp_path / "mbpp.jsonl", tmp_path / "candidates.json"
    problems.write_text(
        "".join(json.dumps(row | {"code": f"add_{n} = None"}) + "\n" for n, row in zip(NUMBERS, rows, strict=True))
    )
    candidates.write_text(
        json.dumps({text.format(n=n): [c.replace("{n}", str(n)) for c in CANDIDATES.values()] for n in NUMBERS})
    )
    monkeypatch.setenv("CANDIDATES", str(candidates))
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    program = [sys.executable, "-m", "tests.e2e.candidates"]
    monkeypatch.setattr(tasks.rollouts.generate, "generate_command", lambda config: [*program, str(config)])
    config = RestEM.model_validate(
        {
            "run": "programs",
            "runs_dir": tmp_path / "runs",
            "model": str(policy),
            "problems": problems,
            "limit": 6,
            "limit_validation": 2,
            "limit_test": 2,
            "iterations": 1,
            "reward": {"name": "program", "workers": 2, "ahead": True},
            "generate": {"samples": len(CANDIDATES), "max_tokens": 200},
            "evaluate": {"samples": 2, "pass_at": [1, 2]},
            "overlap": {"near_duplicates": None, "contamination": None},
            "launch": {"log_steps": 1},
            "train": {"epochs": 6, "batch_size": 8, "dtype": "float32", "learning_rate": 1e-3},
        }
    )
    use_forks(monkeypatch.setattr)
    summary = run_loop("ReST-EM", loop, config, OnDrift.REFUSE)
    here = config.directory / "iter-1"
    samples, scores = read_rows(Sample, here / "generate" / "samples"), read_rows(Score, here / "score" / "scores")
    names = list(CANDIDATES)
    for sample, score in zip(samples, scores, strict=True):
        name = names[sample.index]
        assert score.verdict == VERDICTS.get(name, "wrong"), (name, score)
        assert "(bubblewrap" in score.explanation
    kept = list(read_rows(Example, here / "select" / "examples.parquet"))
    asked = list(read_rows(Problem, config.directory / "problems" / "train.parquet"))
    assert len(kept) == len(RIGHT) * len(asked) and {names[example.index] for example in kept} == set(RIGHT)
    trained, base = load_finished(here / "train"), load_finished(config.directory / "base")
    assert trained and base and trained.artifact("policy").digest != base.artifact("policy").digest
    lines = [json.loads(line) for line in (here / "train" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert summary["best_iteration"] in (0, 1)
