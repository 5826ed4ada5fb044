"""GRPO on stub programs: iterations go on from each other's state, drift, and settings that cannot work."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.grpo import GRPO, loop
from tasks.loop.loop import run_loop
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import DriftError, OnDrift, Status
from tests.flows.conftest import make_history, prepared, small

pytestmark = pytest.mark.usefixtures("stubs")

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


def test_it_is_measured_and_reported_like_every_loop(finished: GRPO) -> None:
    best = json.loads((finished.directory / "best/best.json").read_text())
    assert best["iteration"] == 2
    assert "GRPO raised test accuracy" in (finished.directory / "report.html").read_text()


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
        ({"train": TRAIN | {"adapter": {}}}, "train.adapter is not supported"),
        ({"reward": {"name": "judge"}}, "judge is a model"),
        ({"generate": {"samples": 1}}, "greater than or equal to 2"),
        ({"generate": {"samples": 4, "top_p": 0.9}}, "greater than or equal to 1"),
        ({"generate": {"samples": 4, "top_k": 40}}, "less than or equal to 0"),
        ({"generate": {"samples": 4, "temperature": 0}}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says.replace("*", r"\*")):
        make(tmp_path, **changes)
