"""The progress bar of a program's log becomes one on the run's page, and not more often than people can look.

Where its lines are kept there are few of them.
"""

import logging
import sys
import time
from typing import Any

import pytest

import tasks.stage.progress
from models.progress import Progress
from tasks.stage.progress import ProgressLogger


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def publish(make: Any, **content: Any) -> str:
        found.append(content)
        return "an-id"

    monkeypatch.setattr(tasks.stage.progress, "_publish", publish)
    return found


def test_the_bar_of_a_program_is_understood(published, capsys):
    progress = Progress("generate", 200, "sample", seconds=0.0)
    logger = ProgressLogger(logging.getLogger("test"), "Run.1-iter-1-generate")
    for done in (50, 200):
        progress.update(done, "1,000 tokens/s")
    for line in capsys.readouterr().out.splitlines():
        logger.info(line)
    assert [content["progress"] for content in published] == [25.0, 100.0]
    assert published[0]["key"] == "run-1-iter-1-generate"
    assert published[1]["artifact_id"] == "an-id"


def test_bars_in_quick_succession_and_other_lines_move_nothing(published):
    logger = ProgressLogger(logging.getLogger("test"), "key")
    for line in ("Loading weights", "generate:  10%|█", "generate:  11%|█", "generate:  12%|█", "generate: 100%|██"):
        logger.info(line)
    assert [content["progress"] for content in published] == [10.0, 100.0]


@pytest.mark.parametrize("terminal", [False, True])
def test_few_lines_of_a_bar_are_kept_and_a_terminal_shows_all(published, monkeypatch, caplog, terminal):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    caplog.set_level(logging.INFO)
    logger = ProgressLogger(logging.getLogger("test"), "key")
    for seconds, line in enumerate(["Loading", *(f"train: {percent}%|█" for percent in range(0, 101, 2))]):
        clock[0] = 10.0 * seconds
        logger.info(line)
    kept = [record.getMessage() for record in caplog.records if getattr(record, "send_to_api", True)]
    assert kept == ["Loading", *(f"train: {percent}%|█" for percent in range(10, 100, 10))], "10 % take 50 s"
    assert len(caplog.records) == (52 if terminal else len(kept))


def test_a_quick_bar_is_not_kept_more_often_than_every_30_seconds(published, monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    caplog.set_level(logging.INFO)
    logger = ProgressLogger(logging.getLogger("test"), "run-iter-1-generate")
    for percent in range(0, 101, 20):
        clock[0] = percent / 2
        logger.info(f"generate: {percent}%|█")
    assert caplog.messages == ["60%|█"], "whose line begins with the stage's name"


def test_outside_a_flow_nothing_is_made():
    ProgressLogger(logging.getLogger("test"), "key").info("generate:  10%|█")
