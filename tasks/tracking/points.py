"""Numbers at steps, as a stage's program writes them and as MLflow takes them."""

import json
from dataclasses import dataclass

HELD_OUT = "held_out/"  # prefix of the metrics that training measures on held-out rows


@dataclass(frozen=True)
class Point:
    """A number at a step; `time_ms` is in milliseconds since 1970."""

    name: str
    value: float
    step: int
    time_ms: int


def points_of(lines: str, kind: str, time_ms: int) -> list[Point]:
    """The numbers in the lines of a journal, named train/…, for example, after the kind of stage.

    Metrics on held-out rows keep their names, held_out/….
    """
    points = []
    for line in lines.splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for name, value in row.items():
            known = name if name.startswith(HELD_OUT) else f"{kind}/{name}"
            points.append(Point(known, value, step, time_ms))
    return points
