"""A reward-model run on stub programs: what is trained on, what is held out, what the run leaves behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data.prepare.preferences import is_held_out
from data.rows import Pair, Problem, Sample, Score
from data.storage import read_rows, write_rows
from flows.commands.console import show_summary
from flows.reward_model import RewardModel, loop
from models.config import EngineConfig, RewardModelConfig, ScoreJob
from tasks.datasets.select import NothingKeptError
from tasks.history.state import State, run_state
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.rollouts.trained_reward import (
    GRADER,
    TrainedReward,
    load_reward_metrics,
    read_reward_model,
)
from tasks.stage.contract import SCORING, OnDrift, Status
from tasks.stage.run import Result, Run
from tests.flows.test_sft_dpo import LONG, selection, write

pytestmark = pytest.mark.usefixtures("stubs")


def rows(count: int) -> list[dict[str, Any]]:
    """In nine of ten pairs the chosen side is the longer one, which the stub prefers."""
    sides = [("a b c", "a"), ("a", "a b c")]
    return [
        {"prompt": f"Item {n}?", "chosen": sides[n % 10 == 9][0], "rejected": sides[n % 10 == 9][1]}
        for n in range(count)
    ]


def configure(tmp_path: Path, given: list[dict[str, Any]], **changes: Any) -> RewardModel:
    told = {"run": "rm", "runs_dir": tmp_path / "runs", "pairs": write(tmp_path / "pairs.jsonl", given)}
    return RewardModel.model_validate(told | changes)


def start(config: RewardModel) -> dict[str, Any]:
    return run_loop("Reward model", loop, config, OnDrift.REFUSE)


def pairs_of(config: RewardModel, name: str) -> list[Pair]:
    return list(read_rows(Pair, config.directory / "iter-1" / "pairs" / f"{name}.parquet"))


def test_a_run_holds_out_a_tenth_trains_on_the_rest_and_measures(tmp_path, capsys):
    given = rows(200)
    long = next(n for n, row in enumerate(given) if row["chosen"] == "a")
    given[long] = {**given[long], "chosen": LONG}
    given.append({"prompt": "same", "chosen": "a", "rejected": "a"})
    config = configure(tmp_path, given)
    summary = start(config)
    training, held_out = pairs_of(config, "pairs"), pairs_of(config, "held_out")
    counts = selection(config.directory / "iter-1" / "pairs")
    assert (counts["samples"], counts["too_long"], counts["equal_sides"]) == (201, 1, 1)
    assert counts["kept"] == len(training) and counts["held_out"] == len(held_out)
    assert len(training) + len(held_out) == 199 and 10 <= len(held_out) <= 30
    assert {is_held_out(p.problem_id, 0.1) for p in held_out} == {True}
    assert {is_held_out(p.problem_id, 0.1) for p in training} == {False}
    right = sum(len(pair.chosen) > len(pair.rejected) for pair in held_out)
    assert summary["held_out"]["accuracy"]["value"] == pytest.approx(right / len(held_out))
    assert summary["held_out"]["preferred_longer"] == 1.0
    best = config.directory / "best" / "policy"
    assert read_reward_model(RewardModelConfig(path=str(best)))[0] == best.absolute()
    capsys.readouterr()
    show_summary(config.directory)
    printed, report = capsys.readouterr().out, (config.directory / "report.html").read_text()
    for words in ("Held-out pairs", "expected calibration error", "Reliability", f"{right / len(held_out):.1%} ["):
        assert words in report and words in printed


def test_history_has_curve_figures_and_the_checkpoint_by_reference(tmp_path):
    config = configure(tmp_path, rows(100))
    start(config)
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (version,) = client.search_model_versions("name = 'autodidact-rm'")
    assert version.tags["path"] == str((config.directory / "iter-1" / "train" / "policy").absolute())
    ids = json.loads((config.directory / "mlflow.json").read_text())
    parent, child = (client.get_run(ids[key]) for key in ("parent", "iteration-1"))
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert parent.data.params["train.centering"] == "0.01"
    assert 0 < parent.data.metrics["held_out/accuracy"] <= 1
    assert {"held_out/calibration_error", "held_out/brier", "selection/kept"} <= parent.data.metrics.keys()
    assert child.data.metrics["train/accuracy"] == 0.75
    assert run_state(config.directory).state is State.FINISHED


def test_a_finished_run_is_reused_and_other_settings_are_drift(tmp_path):
    config = configure(tmp_path, rows(100))
    start(config)
    assert {p.status for p in plan_loop(loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}
    faster = config.model_copy(update={"score": config.score.model_copy(update={"batch_tokens": 7})})
    assert {p.status for p in plan_loop(loop, faster, OnDrift.REFUSE).plan} == {Status.REUSE}
    other = config.model_copy(update={"train": config.train.model_copy(update={"margin": 1.0})})
    drifted = {p.stage.name for p in plan_loop(loop, other, OnDrift.REFUSE).plan if p.status is Status.DRIFT}
    assert drifted == {"iter-1/train"}


def test_pairs_of_a_file_of_their_own_are_measured_on_and_not_trained_on(tmp_path):
    validation = write(tmp_path / "validation.jsonl", [*rows(3), {"prompt": "New?", "chosen": "a b", "rejected": "a"}])
    config = configure(tmp_path, rows(20), validation_pairs=validation)
    start(config)
    assert [p.messages[0]["content"] for p in pairs_of(config, "held_out")][-1] == "New?"
    counts = selection(config.directory / "iter-1" / "pairs")
    assert (counts["held_out"], counts["kept"], counts["contaminated"]) == (4, 17, 3)
    assert not {p.problem_id for p in pairs_of(config, "held_out")} & {p.problem_id for p in pairs_of(config, "pairs")}


def test_nothing_is_left_to_measure_on_where_no_held_out_pair_fits(tmp_path):
    long = write(tmp_path / "validation.jsonl", [{"prompt": "?", "chosen": LONG, "rejected": "a"}])
    with pytest.raises(NothingKeptError, match="No row fits the model's context of 1,024 tokens"):
        start(configure(tmp_path, rows(20), validation_pairs=long))


def test_samples_are_scored_as_jobs_with_a_grader_and_a_threshold(tmp_path, processes):
    config = configure(tmp_path, rows(50))
    start(config)
    attempt = config.directory / "iter-1" / ".score.attempt"
    (attempt / "samples").mkdir(parents=True)
    problem = Problem("p", [{"role": "user", "content": "?"}], None, None, "s", "train")
    write_rows(Problem, attempt / "problems.parquet", [problem])
    samples = [Sample("p", n, "word " * n, [1], "stop", "d", 0, "s") for n in (1, 2, 3)]
    write_rows(Sample, attempt / "samples" / "000000.parquet", samples)
    using = RewardModelConfig(path=str(config.directory / "best" / "policy"), passes_at=2.0)
    job = ScoreJob(problems=attempt / "problems.parquet", samples=attempt / "samples", output=attempt / "scores")
    TrainedReward(config=using).score(Run(config.directory).place("iter-1"), attempt, [job], EngineConfig())
    assert (attempt / SCORING).exists()
    found = [(s.value, s.verdict, s.grader) for s in read_rows(Score, job.output)]
    assert found == [(1.0, "wrong", GRADER), (2.0, "correct", GRADER), (3.0, "correct", GRADER)]


def test_a_reward_model_is_an_input_with_the_digest_of_its_stage(tmp_path):
    config = configure(tmp_path, rows(50))
    start(config)
    best = config.directory / "best"
    using = RewardModelConfig(path=str(best / "policy"))
    manifest = json.loads((config.directory / "iter-1" / "measure" / "manifest.json").read_text())
    assert TrainedReward(config=using).artifact().digest == manifest["inputs"]["model"]
    assert load_reward_metrics(Result(best, None)) is None
