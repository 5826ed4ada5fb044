"""Numbers reach MLflow while a stage runs, each once, and no failure of MLflow matters.

A flow that is seen from outside while it trains is in tests/flows/test_kill.py.
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from tasks.tracking import live
from tasks.tracking.live import Live, iteration_of
from tasks.tracking.mlflow import Tracking
from tests.flows.conftest import make_history
from tests.waiting import eventually


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    monkeypatch.setattr(live, "SEND_SECONDS", 0.05)
    return open_tracking(tmp_path)


def open_tracking(folder: Path) -> Tracking:
    """As at every start of the same run."""
    make_history(folder / "runs")
    (folder / "runs" / "run").mkdir(exist_ok=True)
    return Tracking(folder / "runs" / "run", "ReST-EM", {})


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(journal: Path, *steps: int) -> None:
    with journal.open("a") as file:
        file.writelines(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in steps)


def losses(tracking: Tracking, iteration: int = 2) -> list[tuple[int, float]]:
    run = tracking._iteration(iteration)
    return sorted((point.step, point.value) for point in tracking.client.get_metric_history(run, "train/loss"))


def curve(*steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in steps]


def away(*arguments: Any, **named: Any) -> None:
    raise MlflowException("it is away")


@pytest.mark.parametrize(
    ("stage", "iteration"),
    [("base", 0), ("iter-0/evaluate", 0), ("iter-12/train", 12), ("problems", None), ("final/best", None)],
)
def test_a_stage_belongs_to_an_iteration_or_to_none(stage: str, iteration: int | None) -> None:
    assert iteration_of(stage) == iteration


def test_lines_are_sent_as_they_are_written_and_torn_ones_wait(tracking: Tracking, journal: Path) -> None:
    current = Live(tracking)
    with current.following("iter-2/train", journal.parent):
        eventually(lambda: tracking.client.get_run(tracking._iteration(2)).info.status == "RUNNING", seconds=30)
        write(journal, 1)
        eventually(lambda: losses(tracking) == curve(1), seconds=30)
        with journal.open("a") as file:
            file.write('{"step": 2, "lo')
            file.flush()
            time.sleep(0.3)
            file.write('ss": 0.5, "held_out/loss": 2.5}\n')
        eventually(lambda: losses(tracking) == curve(1, 2), seconds=30)
    current.close()
    tracking.log_training(2, journal, 5)
    run = tracking.client.get_run(tracking._iteration(2))
    assert losses(tracking) == curve(1, 2) and run.data.metrics["held_out/loss"] == 2.5
    assert run.data.metrics["system/system_memory_usage_percentage"] > 0


def test_a_program_that_goes_on_from_a_checkpoint_leaves_each_step_once(tmp_path: Path, journal: Path) -> None:
    for steps in ((1, 2, 3), (1, 2, 3, 4)):  # the second start writes step 3 once more
        tracking = open_tracking(tmp_path)
        journal.unlink(missing_ok=True)
        with Live(tracking).following("iter-2/train", journal.parent):
            write(journal, *steps)
        tracking.send_queued()
    assert losses(tracking) == curve(1, 2, 3, 4)


def test_what_mlflow_does_not_take_comes_later_and_the_log_says_so(
    tracking: Tracking, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "SILENT_SECONDS", 0.3)
    said = lambda text: [record for record in caplog.records if text in record.message]  # noqa: E731
    current = Live(tracking)
    with caplog.at_level("INFO"), current.following("iter-2/train", journal.parent):
        write(journal, 1)
        eventually(lambda: losses(tracking) == curve(1), seconds=30)
        with monkeypatch.context() as patch:
            patch.setattr(tracking.client, "log_batch", away)
            write(journal, 2, 3)
            eventually(lambda: said("It has not answered for"), seconds=30)
            time.sleep(0.2)
            assert len(said("It has not answered for")) == 1
            write(journal, 4)
        eventually(lambda: said("MLflow answers again"), seconds=30)
        assert losses(tracking) == curve(1, 2, 3, 4)
    current.close()


def test_what_was_never_sent_is_sent_when_the_run_ends(
    tracking: Tracking, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Live(tracking)
    with monkeypatch.context() as patch:
        patch.setattr(tracking.client, "log_batch", away)
        with current.following("iter-2/train", journal.parent):
            write(journal, 1, 2)
        current.close()
    tracking.log_training(2, journal, 5)
    assert losses(tracking) == curve(1, 2)


def test_a_finished_iteration_is_not_opened_again(tracking: Tracking) -> None:
    tracking.open_iteration(2)
    tracking.log_iteration(2, {"validation/loss": 1.0}, {}, 5)
    tracking.open_iteration(2)
    assert tracking.client.get_run(tracking._iteration(2)).info.status == "FINISHED"
