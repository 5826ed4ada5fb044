"""SPIN from the command line with the real engines, on demonstrations of three formats."""

import csv
import json
import math
from pathlib import Path

import pytest

from data.arithmetic import embedded_problems
from data.rows import Pair, Sample
from data.storage import count_by, read_rows
from tests.e2e.conftest import autodidact

SETTINGS = """
iterations: 1
limit: 128
mixture: {chats.jsonl: 1, worked.csv: 1}
limit_validation: 24
limit_test: 24
limit_transfer: 24
stop: {rule: none}
generate: {samples: 1, temperature: 1.0, top_k: 0, max_tokens: 40, dtype: float32}
train: {learning_rate: 1.0e-4, beta: 1.0, epochs: 2, batch_size: 16, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
launch: {micro_batch_size: 16, log_steps: 1}
"""


def write_demonstrations(folder: Path) -> None:
    """The embedded demonstrations, as three people might have them."""
    worked = [(p.messages[0]["content"], p.response or "") for p in embedded_problems(0) if p.split == "demonstration"]
    asked = [{"instruction": question, "input": "", "output": answer} for question, answer in worked[:60]]
    (folder / "alpaca.json").write_text(json.dumps(asked))
    with (folder / "chats.jsonl").open("w") as file:
        for question, answer in worked[60:120]:
            said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
            file.write(json.dumps({"conversations": said}) + "\n")
    with (folder / "worked.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("problem", "solution"), *worked[120:180]])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> Path:
    folder = tmp_path_factory.mktemp("spin")
    (folder / "settings.yaml").write_text(SETTINGS)
    write_demonstrations(folder)
    given = ("--config", "settings.yaml", "--demonstrations", "alpaca.json", "--model", str(policy))
    output = autodidact(folder, "spin", *given, "--run", "spin")
    assert "Validation, by iteration" in output and "report.html" in output
    return folder / "runs" / "spin"


def test_own_answers_are_trained_on_token_by_token_as_they_were_generated(run):
    samples = {(s.problem_id, s.index): s for s in read_rows(Sample, run / "iter-1" / "generate" / "samples")}
    pairs = list(read_rows(Pair, run / "iter-1" / "pair" / "pairs.parquet"))
    assert len(pairs) > 64
    for pair in pairs:
        assert pair.rejected_token_ids == samples[pair.problem_id, pair.index].token_ids
        assert pair.rejected_source == samples[pair.problem_id, pair.index].policy


def test_each_format_gives_a_third_of_the_pairs(run):
    sources = count_by(run / "problems" / "train.parquet", "source")
    assert set(sources) == {"alpaca.json", "chats.jsonl", "worked.csv"}
    assert len(set(sources.values())) == 1
    assert set(count_by(run / "iter-1" / "pair" / "pairs.parquet", "chosen_source")) == set(sources)


def test_training_starts_where_policy_and_opponent_are_one(run):
    lines = [json.loads(line) for line in (run / "iter-1" / "train" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert [line["rewards/margins"] for line in lines if "rewards/margins" in line][-1] > 0


def test_the_gap_between_gold_and_own_answers_is_measured_and_reported(run):
    metrics = json.loads((run / "iter-1" / "reference" / "likelihood.json").read_text())["current"]
    assert metrics["pairs"] == len(list(read_rows(Pair, run / "iter-1" / "pair" / "pairs.parquet")))
    assert metrics["chosen_per_token"] < 0 and metrics["rejected_per_token"] < 0
    assert "nats per pair" in (run / "report.html").read_text()
