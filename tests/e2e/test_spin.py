"""SPIN from the command line with the real engines."""

import json
import math
from pathlib import Path

import pytest

from data.rows import Pair, Sample
from data.storage import read_rows
from tests.e2e.conftest import autodidact

SETTINGS = """
iterations: 1
limit: 128
limit_validation: 24
limit_test: 24
stop: {rule: none}
generate: {samples: 1, temperature: 1.0, top_k: 0, max_tokens: 40, dtype: float32}
train: {learning_rate: 2.0e-5, beta: 1.0, epochs: 1, batch_size: 16, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
launch: {micro_batch_size: 16, log_steps: 1}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Path:
    folder = tmp_path_factory.mktemp("spin")
    (folder / "settings.yaml").write_text(SETTINGS)
    output = autodidact(folder, "spin", "--config", "settings.yaml", "--run", "spin", "--model", str(policy))
    assert "Validation, by iteration" in output and "report.html" in output
    return folder / "runs" / "spin"


def test_own_answers_are_trained_on_token_by_token_as_they_were_generated(run):
    samples = {(s.problem_id, s.index): s for s in read_rows(Sample, run / "iter-1" / "generate" / "samples")}
    pairs = list(read_rows(Pair, run / "iter-1" / "pair" / "pairs.parquet"))
    assert len(pairs) > 64
    for pair in pairs:
        assert pair.rejected_token_ids == samples[pair.problem_id, pair.index].token_ids
        assert pair.rejected_source == samples[pair.problem_id, pair.index].policy


def test_training_starts_where_policy_and_opponent_are_one(run):
    lines = [json.loads(line) for line in (run / "iter-1" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[-1]["rewards/margins"] > 0


def test_the_gap_between_gold_and_own_answers_is_measured_and_reported(run):
    metrics = json.loads((run / "iter-1" / "reference" / "likelihood.json").read_text())["current"]
    assert metrics["pairs"] == len(list(read_rows(Pair, run / "iter-1" / "pair" / "pairs.parquet")))
    assert metrics["chosen_per_token"] < 0 and metrics["rejected_per_token"] < 0
    assert "nats per pair" in (run / "report.html").read_text()
