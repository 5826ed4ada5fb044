"""Real RLAIF: a policy labels its own answers, or scores them while it learns; a kill in any kind of stage."""

import json
from pathlib import Path

import pytest

from data.labels import Label, soft_label
from data.rows import Pair, Rollout
from data.storage import read_rows
from scripts.labels import RUBRIC, demonstrations, ranked
from tests.e2e.conftest import autodidact
from tests.e2e.killed_stages import same_bytes_after_kills

SETTINGS = f"""
limit: 24
limit_validation: 16
limit_test: 16
limit_transfer: 16
iterations: 1
stop: {{rule: none}}
demonstrations: demonstrations.jsonl
answers: 4
labeler: {{rubric: "{RUBRIC}", max_reasoning: 60, dtype: float32}}
generate: {{max_tokens: 40, dtype: float32}}
sft_train: {{learning_rate: 1.0e-3, epochs: 1, batch_size: 16, dtype: float32}}
dpo: {{learning_rate: 1.0e-4, batch_size: 8, dtype: float32}}
reward_train: {{batch_size: 8, dtype: float32}}
train: {{steps: 2, problems: 8, batch_size: 8, epochs: 1, dtype: float32}}
evaluate: {{samples: 2, pass_at: [1, 2]}}
launch: {{micro_batch_size: 8}}
"""
DIRECT = """
learn: direct
reward: {direct: {rubric: "From 1 to 10?", dtype: float32}}
"""
KINDS = ("ranked/judge", "iter-1/generate", "iter-1/label", "iter-1/reference", "iter-1/train")


def arguments(folder: Path, policy: Path, settings: str = SETTINGS + "ranked: ranked.jsonl\n") -> list[str]:
    """The settings' files, and the command's arguments."""
    (folder / "settings.yaml").write_text(settings)
    for name, rows in (("demonstrations", demonstrations(64, 32)), ("ranked", ranked(16))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["rlaif", "--config", "settings.yaml", "--run", "own", "--model", str(policy)]


def test_a_policy_labels_its_answers_and_learns_from_the_labels(policy: Path, tmp_path: Path) -> None:
    told = arguments(tmp_path, policy)
    autodidact(tmp_path, *told)
    run = tmp_path / "runs/own"
    labels = list(read_rows(Label, run / "iter-1/label/labels"))
    assert labels and all(one.reasoning and one.swapped_reasoning for one in labels)
    assert [one.value for one in labels] == [soft_label(one.straight or 0, one.swapped or 0) for one in labels]
    pairs = [pair for name in ("pairs", "held_out") for pair in read_rows(Pair, run / f"iter-1/pair/{name}.parquet")]
    values = [max(one.value, 1 - one.value) for one in labels if one.value is not None]
    assert sorted(pair.label or 0 for pair in pairs) == pytest.approx(sorted(value for value in values if value > 0.5))
    assert "nothing is left to do" in autodidact(tmp_path, *told)


def test_a_policy_scores_its_answers_while_it_learns(policy: Path, tmp_path: Path) -> None:
    autodidact(tmp_path, *arguments(tmp_path, policy, SETTINGS.replace("demonstrations: ", "# ") + DIRECT))
    drawn = list(read_rows(Rollout, tmp_path / "runs/own/iter-1/train/rollouts"))
    values = {row.value for row in drawn if row.finish_reason == "stop"}
    assert len(drawn) == 16 and len(values) > 1 and all(value is not None and -1 < value < 1 for value in values)
    assert {row.grader for row in drawn} == {"direct@1"}


@pytest.mark.nightly
def test_a_reward_model_learns_the_labels_and_the_policy_from_it(policy: Path, tmp_path: Path) -> None:
    autodidact(tmp_path, *arguments(tmp_path, policy, SETTINGS + "learn: reward-model\nforced: true\n"))
    run = tmp_path / "runs/own"
    assert len(list(read_rows(Rollout, run / "iter-1/train/rollouts"))) == 16
    losses = [json.loads(line) for line in (run / "reward/train/metrics.jsonl").read_text().splitlines()]
    assert all("loss" in one or "held_out/loss" in one for one in losses)


@pytest.mark.nightly
def test_killed_in_each_kind_of_stage_it_ends_with_the_same_bytes(policy: Path, tmp_path: Path) -> None:
    same_bytes_after_kills(tmp_path, lambda folder: arguments(folder, policy), "own", KINDS)
