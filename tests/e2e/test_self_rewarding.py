"""Real Self-Rewarding: the policy that answers is the one that judges; a kill in any kind of stage changes nothing."""

import json
from pathlib import Path

import pytest

from data.judge_questions import Opinion
from data.rows import Example, Pair
from data.storage import read_rows
from models.asking.judge import OPINIONS
from scripts.judgments import RUBRIC, demonstrations, ranked
from tests.e2e.conftest import autodidact
from tests.e2e.killed_stages import same_bytes_after_kills

SETTINGS = f"""
limit: 24
limit_validation: 16
limit_test: 16
limit_transfer: 16
iterations: 2
stop: {{rule: none}}
demonstrations: demonstrations.jsonl
eft: eft.jsonl
ranked: ranked.jsonl
judge_limits: {{entropy: 0, length: 1}}
generate: {{max_tokens: 40, temperature: 1.0, dtype: float32}}
reward: {{judge: {{rubric: "{RUBRIC}", max_reasoning: 60, opinions: 2, dtype: float32}}, max_error_share: 1}}
sft_train: {{learning_rate: 1.0e-3, epochs: 1, batch_size: 16, dtype: float32}}
train: {{learning_rate: 1.0e-4, batch_size: 8, dtype: float32}}
evaluate: {{samples: 2, pass_at: [1, 2]}}
launch: {{micro_batch_size: 8}}
"""
KINDS = ("sft/train", "iter-0/judge", "iter-1/generate", "iter-1/score", "iter-1/reference", "iter-1/train")


def arguments(folder: Path, policy: Path, *more: str) -> list[str]:
    """The settings' files, and the command's arguments."""
    people = list(ranked(40))
    (folder / "settings.yaml").write_text(SETTINGS)
    for name, rows in (("demonstrations", demonstrations(64, 32)), ("eft", people[:24]), ("ranked", people[24:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["--config", "settings.yaml", "--run", "own", "--model", str(policy), *more]


def test_answers_opinions_and_pairs_come_from_one_policy(policy: Path, tmp_path: Path) -> None:
    told = arguments(tmp_path, policy, "--iterations", "1")
    autodidact(tmp_path, "self-rewarding", *told)
    run = tmp_path / "runs/own"
    opinions = list(read_rows(Opinion, run / "iter-1/score/scores-judge" / OPINIONS))
    assert opinions and all(one.value in list("012345") for one in opinions)
    pairs = [pair for name in ("pairs", "held_out") for pair in read_rows(Pair, run / f"iter-1/pair/{name}.parquet")]
    (writer,) = {pair.chosen_source for pair in pairs}
    assert json.loads((run / "iter-1/score/manifest.json").read_text())["inputs"]["judge"] == writer
    counts = json.loads((run / "sft/examples/selection.json").read_text())
    shown = len(list(read_rows(Example, run / "baseline/examples/examples.parquet")))
    people = len(list(read_rows(Pair, run / "eft/pairs/ranked.parquet")))
    assert counts["samples"] == shown + 2 * 2 * people and counts["kept"] > shown > 0  # two opinions of two sides
    assert "nothing is left to do" in autodidact(tmp_path, "self-rewarding", *told)


@pytest.mark.nightly
def test_killed_in_each_kind_of_stage_it_ends_with_the_same_bytes(policy: Path, tmp_path: Path) -> None:
    def told(folder: Path) -> list[str]:
        return ["self-rewarding", *arguments(folder, policy, "--iterations", "1")]

    same_bytes_after_kills(tmp_path, told, "own", KINDS)
