"""Real Self-Rewarding: the policy that answers is the one that judges; a kill in any kind of stage changes nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data.judge_questions import Opinion
from data.rows import Example, Pair
from data.storage import read_rows
from models.asking.judge import OPINIONS
from scripts.judgments import RUBRIC, demonstrations, ranked
from tasks.stage.contract import attempt_directory
from tests.e2e.conftest import autodidact
from tests.waiting import PATIENCE, eventually

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
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    assert start(whole, policy).wait(3 * PATIENCE) == 0, said(whole)
    for stage in KINDS:
        process, log = start(killed, policy), attempt_directory(killed / "runs/own", stage) / "log.txt"
        eventually(log.exists, lambda: said(killed))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        assert not (killed / "runs/own" / stage).exists()
    assert start(killed, policy).wait(3 * PATIENCE) == 0, said(killed)
    assert results(killed / "runs/own") == results(whole / "runs/own")


def start(folder: Path, policy: Path) -> subprocess.Popen[bytes]:
    """The command as a user starts it, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "flows.commands.cli",
        "self-rewarding",
        *arguments(folder, policy, "--iterations", "1"),
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    environment["AUTODIDACT_CACHE"] = str(folder.parent / "cache")
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def said(folder: Path) -> str:
    return (folder / "out.txt").read_text()[-3000:]


def results(run: Path) -> dict[str, str]:
    """The SHA-256 of every file that a stage made, but for logs."""
    found = {}
    for file in run.rglob("manifest.json"):
        for name, record in json.loads(file.read_text())["outputs"].items():
            if not name.endswith(".txt"):
                found[f"{file.parent.relative_to(run)}/{name}"] = record["sha256"]
    return found
