"""The progress bar of a program's log becomes one on the run's page, and not more often than people can look."""

import logging
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


def test_the_bar_of_a_program_is_understood(published, capsys, caplog):
    progress = Progress("generate", 200, "sample", seconds=0.0)
    logger = ProgressLogger(logging.getLogger("test"), "Run.1-iter-1-generate")
    for done in (50, 200):
        progress.update(done, "1,000 tokens/s")
    with caplog.at_level(logging.INFO):
        for line in capsys.readouterr().out.splitlines():
            logger.info(line)
    assert [content["progress"] for content in published] == [25.0, 100.0]
    assert published[0]["key"] == "run-1-iter-1-generate"
    assert published[1]["artifact_id"] == "an-id"
    assert len(caplog.records) == 2


def test_bars_in_quick_succession_and_other_lines_move_nothing(published, caplog):
    caplog.set_level(logging.INFO)
    logger = ProgressLogger(logging.getLogger("test"), "key")
    for line in ("Loading weights", "generate:  10%|█", "generate:  11%|█", "generate:  12%|█", "generate: 100%|██"):
        logger.info(line)
    assert [content["progress"] for content in published] == [10.0, 100.0]


def test_outside_a_flow_nothing_is_made(caplog):
    caplog.set_level(logging.INFO)
    ProgressLogger(logging.getLogger("test"), "key").info("generate:  10%|█")
