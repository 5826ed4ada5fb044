"""The data of the RLAIF demo are those that their script writes, and what it says of them."""

import json
import re

import yaml

from data.arithmetic import has_false_step, shows_no_steps
from scripts.judgments import RIGHT, STEPS
from scripts.labels import ANSWERS, FOLDER, LABELS, RUBRIC, demonstrations, ranked

SHOWN = re.compile(r"<answer (\d)>\n(.*?)\n</answer \1>", re.DOTALL)


def test_the_files_are_what_the_script_writes() -> None:
    for name, rows in (("demonstrations", demonstrations()), ("ranked", ranked())):
        assert (FOLDER / f"{name}.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)


def test_the_demo_compares_by_their_rubric() -> None:
    demo = yaml.safe_load((FOLDER.parent / "rlaif-demo.yaml").read_text())
    assert demo["labeler"]["rubric"] == RUBRIC


def test_the_better_answer_has_more_points_and_both_places_win() -> None:
    rows = [row["messages"] for row in demonstrations()]
    assert len(rows) == LABELS + ANSWERS
    better = []
    for (asked,), said in ((row[:-1], row[-1]["content"]) for row in rows[:LABELS]):
        reply = json.loads(said)
        *_, result, first, second = reply["reasoning"].split()
        assert not has_false_step(reply["reasoning"])
        points = []
        for (_, answer), difference in zip(SHOWN.findall(asked["content"]), (first, second), strict=True):
            right = answer.split()[-1] == result
            assert difference.endswith("=0") == right
            points.append(STEPS * (not shows_no_steps(answer)) + RIGHT * right)
        assert points[0] != points[1] and reply["better"] == (1 if points[0] > points[1] else 2)
        better.append(reply["better"])
    assert 0.45 < better.count(1) / len(better) < 0.55
