"""ReST-EM on stub programs: the loop, its history, reuse, drift, failure."""

import json
import logging
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from data.prepare.sources import DataFileError
from data.rows import Example, Score
from data.storage import read_rows
from flows.rest_em import RestEM, loop
from tasks.datasets.select import NothingKeptError
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import DriftError, OnDrift, Status, load_finished
from tasks.stage.process import ChildError
from tasks.stage.run import Run
from tests.flows.conftest import copy_runs, make_config, prepared

pytestmark = pytest.mark.usefixtures("stubs")


def run(config: RestEM, on_drift: OnDrift = OnDrift.REFUSE) -> dict[str, object]:
    return run_loop("ReST-EM", loop, config, on_drift)


def digests(config: RestEM) -> dict[str, str]:
    """Digest of every stage of a run."""
    found = {}
    for manifest in sorted(config.directory.rglob("manifest.json")):
        finished = load_finished(manifest.parent)
        assert finished is not None
        found[str(manifest.parent.relative_to(config.directory))] = finished.manifest.digest
    return found


def times(config: RestEM) -> dict[str, str]:
    return {str(m.parent): json.loads(m.read_text())["started"] for m in config.directory.rglob("manifest.json")}


def history(config: RestEM) -> tuple[MlflowClient, list]:
    client = MlflowClient(f"sqlite:///{config.runs_dir / 'mlflow.db'}")
    return client, client.search_runs([e.experiment_id for e in client.search_experiments()])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RestEM:
    """A finished run."""
    config = make_config(tmp_path_factory.mktemp("undisturbed"))
    with prepared(cache):
        run(config)
    return config


@pytest.fixture
def finished(tmp_path: Path, undisturbed: RestEM) -> RestEM:
    """A copy of the finished run."""
    copy_runs(undisturbed, tmp_path)
    return make_config(tmp_path)


def test_the_loop_improves_the_policy_and_publishes_the_best(config, processes):
    summary = run(config)
    assert summary["best_iteration"] > 0
    best = json.loads((config.directory / "best" / "best.json").read_text())
    assert best["iteration"] == summary["best_iteration"]
    made = config.directory / f"iter-{best['iteration']}" / "train" / "policy" / "skill.json"
    assert (config.directory / "best" / "policy" / "skill.json").read_bytes() == made.read_bytes()
    assert "ReST-EM raised test accuracy" in (config.directory / "report.html").read_text()
    assert (config.directory / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_every_m_step_starts_from_the_base_or_from_the_last_policy_as_asked(tmp_path):
    started = {}
    for init in ("base", "last"):
        config = make_config(tmp_path, run=init, init=init)
        run(config)
        manifest = json.loads((config.directory / "iter-2" / "train" / "manifest.json").read_text())
        origin = {"base": "base", "last": "iter-1/train"}[init]
        finished = load_finished(config.directory / origin)
        assert finished is not None
        started[init] = manifest["inputs"]["start"]
        assert started[init] == finished.artifact("policy").digest
    assert started["base"] != started["last"]


def test_test_and_transfer_are_measured_only_at_the_end(finished):
    for evaluation in finished.directory.glob("iter-*/evaluate"):
        assert [path.name for path in evaluation.iterdir() if path.is_dir()] == ["validation"]
    assert {p.name for p in (finished.directory / "final" / "best").iterdir() if p.is_dir()} == {"test", "transfer"}


def test_a_finished_run_is_reused_without_starting_a_program_and_its_log_says_so(finished, monkeypatch, caplog):
    before = times(finished)
    monkeypatch.setattr(Run, "start", lambda *_: pytest.fail("a program was started"))
    caplog.set_level(logging.INFO, "autodidact")
    run(finished)
    assert times(finished) == before
    plan = json.loads((finished.directory / "plan.json").read_text())
    told = [line for line in caplog.messages if line.partition(":")[0] in plan]
    assert told == [f"{stage}: finished before, reused" for stage in plan]
    assert {p.status for p in plan_loop(loop, finished, OnDrift.REFUSE).plan} == {Status.REUSE}


def test_settings_that_do_not_change_the_result_do_not_drift(tmp_path, finished):
    changed = make_config(tmp_path, engine={"shard_size": 40, "max_num_seqs": 8}, launch={"zero_stage": 2})
    assert {p.status for p in plan_loop(loop, changed, OnDrift.REFUSE).plan} == {Status.REUSE}


def test_another_configuration_is_refused_naming_field_and_ways_on(tmp_path, finished):
    before = digests(finished)
    with pytest.raises(DriftError) as refused:
        run(make_config(tmp_path, train={"learning_rate": 0.5}))
    for words in ("iter-1/train", "config.learning_rate: 1e-06 → 0.5", "--on-drift rebuild", "accept", "--run"):
        assert words in str(refused.value)
    assert digests(finished) == before


def test_drift_is_rebuilt_with_all_that_follows_or_accepted_as_it_is(tmp_path, finished):
    changed = make_config(tmp_path, select={"max_per_problem": 1})
    before, started = digests(finished), times(finished)
    run(changed, OnDrift.ACCEPT)
    assert digests(finished) == before
    run(changed, OnDrift.REBUILD)
    again = times(finished)
    rebuilt = {name.split("/stub/")[1] for name in again if again[name] != started.get(name)}
    assert {"iter-1/select", "iter-1/train", "iter-2/generate", "final/best"} <= rebuilt
    assert not rebuilt & {"problems", "base", "iter-1/generate", "iter-1/score"}


def test_a_crashed_program_fails_the_run_with_its_log_and_the_next_start_goes_on(config, processes, monkeypatch):
    monkeypatch.setenv("STUB_CRASH", "iter-2/train")
    with pytest.raises(ChildError) as failed:
        run(config)
    assert "the stub was told to crash" in str(failed.value)
    assert "exit code 1" in str(failed.value)
    _, runs = history(config)
    assert {r.info.status for r in runs if "mlflow.parentRunId" not in r.data.tags} == {"FAILED"}
    before = times(config)
    monkeypatch.delenv("STUB_CRASH")
    run(config)
    after = times(config)
    assert before.items() <= after.items()


def test_the_history_has_one_parent_and_one_child_per_iteration_also_after_a_resume(config, monkeypatch):
    monkeypatch.setenv("STUB_CRASH", "iter-2/evaluate")
    with pytest.raises(ChildError):
        run(config)
    monkeypatch.delenv("STUB_CRASH")
    run(config)
    run(config)
    client, runs = history(config)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if "mlflow.parentRunId" in r.data.tags]
    assert len(parents) == 1
    assert sorted(r.data.tags["iteration"] for r in children) == ["0", "1", "2"]
    assert {r.info.status for r in runs} == {"FINISHED"}
    curve = client.get_metric_history(parents[0].info.run_id, "validation/pass_at_1_greedy")
    assert [m.step for m in sorted(curve, key=lambda m: m.step)] == [0, 1, 2]
    assert parents[0].data.params["generate.samples"] == "4"
    logged = {entry.dataset.name for entry in client.get_run(parents[0].info.run_id).inputs.dataset_inputs}
    assert logged == {"train", "validation", "test", "transfer"}
    versions = client.search_model_versions("name='autodidact-stub'")
    assert {v.tags["iteration"] for v in versions} == {"0", "1", "2"}
    best = client.get_model_version_by_alias("autodidact-stub", "champion")
    assert Path(best.tags["path"]).is_dir()


def test_nothing_kept_ends_the_run_with_the_reasons_and_trains_nothing(tmp_path):
    config = make_config(tmp_path, reward={"name": "tests.flows.rewards:never"})
    with pytest.raises(NothingKeptError) as ended:
        run(config)
    assert "None of the 400 samples can be trained on (400 wrong)" in str(ended.value)
    assert not (config.directory / "iter-1" / "train").exists()
    assert (config.directory / "iter-1" / "generate" / "manifest.json").exists()


def test_the_paper_rule_ends_the_loop_once_validation_does_not_improve(tmp_path):
    config = make_config(
        tmp_path, iterations=5, stop={"rule": "paper"}, reward={"name": "tests.flows.rewards:forgetful"}
    )
    summary = run(config)
    assert "validation did not improve in iteration" in str(summary["stop_reason"])
    assert not (config.directory / "iter-5").exists()


def test_a_sample_can_be_followed_back_to_the_checkpoint_that_wrote_it(finished):
    trained = load_finished(finished.directory / "iter-1" / "train")
    assert trained is not None
    examples = list(read_rows(Example, finished.directory / "iter-2" / "select" / "examples.parquet"))
    assert {e.policy for e in examples} == {trained.artifact("policy").digest}


@pytest.mark.skipif(not shutil.which("bwrap"), reason="there is no bubblewrap: no loop learned from programs")
def test_programs_that_pass_their_tests_are_what_is_learned(tmp_path):
    rows = [
        {
            "text": f"Write add_{n}, which adds {n * 17 % 97} to a number.",
            "code": f"def add_{n}(x):\n    return x + {n * 17 % 97}",
            "test_list": [f"assert add_{n}(1) == {n * 17 % 97 + 1}"],
        }
        for n in range(100)
    ]
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {"limit": 6, "limit_validation": 4, "limit_test": 3, "evaluate": {"samples": 2, "pass_at": [1, 2]}}
    config = make_config(tmp_path, iterations=1, problems=path, reward={"name": "program"}, **sizes)
    run(config)
    verdicts = json.loads((config.directory / "iter-1" / "score" / "tally.json").read_text())["verdicts"]
    assert set(verdicts) == {"correct", "wrong"} and sum(verdicts.values()) == 24
    gold = {row["code"] for row in rows}
    examples = list(read_rows(Example, config.directory / "iter-1" / "select" / "examples.parquet"))
    assert examples and all(example.completion.partition("\n")[2] in gold for example in examples)
    scores = list(read_rows(Score, config.directory / "iter-1" / "score" / "scores"))
    assert all("(bubblewrap" in score.explanation for score in scores)


def test_the_reward_for_programs_takes_no_arithmetic(tmp_path):
    with pytest.raises(DataFileError, match="embedded problems are arithmetic, but the reward judges programs"):
        run(make_config(tmp_path, reward={"name": "program"}))
