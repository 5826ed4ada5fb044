"""An engine's meter notes how fast it is in a journal, if it has one."""

import json
from pathlib import Path

from models.engine.meter import Meter
from models.progress import Progress


def test_tokens_per_second_are_noted_at_each_line_of_the_bar(tmp_path: Path) -> None:
    journal = tmp_path / "metrics.jsonl"
    meter = Meter(Progress("generate", 4, "sample", done=1, seconds=0.0), journal)
    meter.add(1, 100)
    meter.add(2, 0)
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[0]["tokens_per_second"] > 0 == rows[1]["tokens_per_second"], "of the time since the last line"
