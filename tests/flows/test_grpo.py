"""GRPO on stub programs: iterations go on from each other's state, drift, and settings that cannot work."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import tasks.rollouts.learn
from data.rewards import RewardError
from flows.commands import history
from flows.grpo import GRPO, loop
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.rollouts.learn import NoRoomError
from tasks.stage.contract import DriftError, OnDrift, Status
from tests.flows.conftest import make_history, prepared, small, write_reward_model

pytestmark = pytest.mark.usefixtures("stubs")

JUDGE = {"endpoint": "http://localhost:9/v1", "model": "a judge"}
TRAIN = {"steps": 5, "problems": 8, "batch_size": 16, "dtype": "float32"}


def make(folder: Path, **changes: Any) -> GRPO:
    make_history(folder / "runs")
    generate = {"samples": 4, "max_tokens": 48}
    told = small(folder) | {"iterations": 2, "generate": generate, "train": TRAIN, "launch": {"micro_batch_size": 16}}
    return GRPO.model_validate(told | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> GRPO:
    config = make(tmp_path_factory.mktemp("grpo"))
    with prepared(cache):
        run_loop("GRPO", loop, config, OnDrift.REFUSE)
    return config


def test_each_iteration_goes_on_from_the_policy_and_the_state_of_the_last(finished: GRPO) -> None:
    programs = [json.loads((finished.directory / f"iter-{n}/train/program.json").read_text()) for n in (1, 2)]
    assert [one["first_step"] for one in programs] == [0, 5]
    assert {one["total_steps"] for one in programs} == {10} and {one["seed"] for one in programs} == {finished.seed}
    assert programs[0]["state"] is None and programs[1]["state"].endswith("iter-1/train/state")
    assert programs[1]["policy"].endswith("iter-1/train/policy")
    assert programs[0]["reference"] == programs[1]["reference"] == programs[0]["policy"]


def test_states_go_once_no_later_step_needs_them(finished: GRPO) -> None:
    assert not list(finished.directory.glob("iter-*/train/state/*/*.pt"))
    assert all((finished.directory / f"iter-{n}/train/policy/model.safetensors").exists() for n in (1, 2))
    plan = plan_loop(loop, finished, OnDrift.REFUSE)
    assert {planned.status for planned in plan.plan} == {Status.REUSE}
    assert run_loop("GRPO", loop, finished, OnDrift.REFUSE)["best_iteration"] == 2


def test_an_answer_is_traced_to_its_step_and_what_the_policy_began_from(
    finished: GRPO, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [finished.run, "--runs-dir", str(finished.runs_dir)]
    assert history.trace(where) == 0
    keys = re.findall(r"iter-2/\w+/\d+", capsys.readouterr().out)
    assert history.trace([where[0], keys[0], *where[1:]]) == 0
    said = capsys.readouterr().out
    assert "trained on in iter-2/train" in said and "drawn in step 6; advantage 0.5" in said
    assert "1, correct, answer read as" in said
    assert said.index("policy      iter-1/train") < said.index("before it   base")
    assert "learned from its own answers" in said and "DIFFERS" not in said
    assert history.trace([where[0], keys[1], *where[1:]]) == 0
    said = capsys.readouterr().out
    assert "trained on in nothing yet" in said and "nothing was learned from it" in said


def test_mlflow_shows_what_was_drawn(finished: GRPO) -> None:
    table = json.loads((finished.directory / "rollouts-2.json").read_text())
    assert table["columns"] == ["prompt", "answer", "reward", "verdict", "advantage"]
    assert [row[2:] for row in table["data"]] == [[1.0, "correct", 0.5], [1.0, "correct", None]]


def test_far_from_the_base_it_ends(tmp_path: Path, cache: Path) -> None:
    config = make(tmp_path, train=TRAIN | {"most_kl": 0.005})
    summary = run_loop("GRPO", loop, config, OnDrift.REFUSE)
    assert summary["stop_reason"] == (
        "the KL divergence from the base reached 0.01 nats per token, more than train.most_kl 0.005"
    )
    assert len(summary["iterations"]) == 2  # the base, and the one that went there
    further = make(tmp_path, train=TRAIN | {"most_kl": 0.05})
    made = (config.directory / "iter-1/train/manifest.json").read_text()
    assert len(run_loop("GRPO", loop, further, OnDrift.REBUILD)["iterations"]) == 3
    assert (config.directory / "iter-1/train/manifest.json").read_text() == made  # it goes on from where it ended


def test_models_that_score_are_told_to_the_program(tmp_path: Path) -> None:
    model = write_reward_model(tmp_path / "model")
    parts = {"final_answer": {}, "judge": {"weight": 0.1}, "reward-model": {"weight": 0.1}}
    reward = {"parts": parts, "judge": JUDGE, "model": {"path": str(model)}}
    config = make(tmp_path, iterations=1, reward=reward, evaluate={"reward": {"name": "final_answer"}})
    run_loop("GRPO", loop, config, OnDrift.REFUSE)
    told = json.loads((config.directory / "iter-1/train/program.json").read_text())["judged_by"]
    assert list(told["graders"]) == list(parts) and told["combination"]["parts"].keys() == parts.keys()
    judge = told["models"]["judge"]
    assert judge["judge"]["endpoint"] == JUDGE["endpoint"] and judge["seed"] == config.seed
    assert told["models"]["reward-model"]["model"] == str(model)
    manifest = json.loads((config.directory / "iter-1/train/manifest.json").read_text())
    assert "reward-model" in manifest["inputs"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("judge", "give its address as reward.judge.endpoint"), ("tests.flows.rewards:Lengths", "Give it as a function")],
)
def test_rewards_with_a_program_of_their_own_are_refused(tmp_path: Path, name: str, says: str) -> None:
    judge = {"model": "a judge"}
    config = make(tmp_path, reward={"name": name, "judge": judge}, evaluate={"reward": {"name": "final_answer"}})
    with pytest.raises(RewardError, match=says):
        config.check_inputs()


def test_an_engine_that_leaves_the_trainer_no_room_is_refused_while_planning(
    tmp_path: Path, finished: GRPO, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make(tmp_path, engine={"beside_trainer": 0.9})
    assert plan_loop(loop, config, OnDrift.REFUSE).plan
    monkeypatch.setattr(tasks.rollouts.learn, "gpu_memory", lambda: 150_000_000)
    assert plan_loop(loop, make(tmp_path), OnDrift.REFUSE).plan  # 0.4 of it leaves enough
    made = plan_loop(loop, make(finished.runs_dir.parent, engine={"beside_trainer": 0.9}), OnDrift.REFUSE)
    assert {planned.status for planned in made.plan} == {Status.REUSE}  # what is made needs no room
    with pytest.raises(NoRoomError, match=r"which leaves \d+%, and engine\.beside_trainer is 0\.9"):
        plan_loop(loop, config, OnDrift.REFUSE)


def test_it_is_measured_and_reported_like_every_loop(finished: GRPO) -> None:
    best = json.loads((finished.directory / "best/best.json").read_text())
    assert best["iteration"] == 2
    report = (finished.directory / "report.html").read_text()
    assert "GRPO raised test accuracy" in report
    assert "All answers to the problem got the same reward, so there is nothing to learn." in report
    counts = json.loads((finished.directory / "iter-1/train/selection.json").read_text())
    assert counts == {"samples": 10, "kept": 5, "no spread": 5}
    manifest = json.loads((finished.directory / "iter-1/train/manifest.json").read_text())
    assert (manifest["rows_in"], manifest["rows_out"], manifest["dropped"]) == (10, 5, {"no spread": 5})


def test_with_other_settings_of_learning_it_is_refused(finished: GRPO) -> None:
    changed = finished.model_copy(update={"train": finished.train.model_copy(update={"advantage": "leave-one-out"})})
    plan = plan_loop(loop, changed, OnDrift.REFUSE)
    assert [p.status for p in plan.plan if p.stage.name == "iter-1/train"] == [Status.DRIFT]
    with pytest.raises(DriftError, match="advantage"):
        run_loop("GRPO", loop, changed, OnDrift.REFUSE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": TRAIN | {"problems": 9}}, "9 × 4 = 36 answers, which is not a multiple of train.batch_size, 16"),
        ({"launch": {"processes": 3, "micro_batch_size": 1}, "train": TRAIN | {"batch_size": 32}}, "not a multiple of"),
        ({"train": TRAIN | {"overlong": 48}}, "even the shortest answers would lose reward"),
        ({"train": TRAIN | {"epochs": 1.5}}, "a whole number of times"),
        ({"generate": {"samples": 1}}, "greater than or equal to 2"),
        ({"generate": {"samples": 4, "top_p": 0.9}}, "greater than or equal to 1"),
        ({"generate": {"samples": 4, "top_k": 40}}, "less than or equal to 0"),
        ({"generate": {"samples": 4, "temperature": 0}}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says.replace("*", r"\*")):
        make(tmp_path, **changes)
