"""The data of the Self-Rewarding demo are those that their script writes, and what it says of them."""

import json

import yaml

from data.arithmetic import has_false_step, shows_no_steps
from data.judge_questions import read_reply
from scripts.judgments import ANSWERS, FOLDER, JUDGMENTS, RIGHT, RUBRIC, STEPS, demonstrations, ranked


def test_the_files_are_what_the_script_writes() -> None:
    for name, rows in (("demonstrations", demonstrations()), ("ranked", ranked())):
        assert (FOLDER / f"{name}.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)


def test_the_demo_judges_by_their_rubric() -> None:
    demo = yaml.safe_load((FOLDER.parent / "self-rewarding-demo.yaml").read_text())
    assert demo["reward"]["judge"]["rubric"] == RUBRIC


def test_each_score_is_that_of_the_answer() -> None:
    rows = [row["messages"] for row in demonstrations()]
    assert len(rows) == JUDGMENTS + ANSWERS
    for (asked,), said in ((row[:-1], row[-1]["content"]) for row in rows[:JUDGMENTS]):
        answer = asked["content"].partition("<answer>\n")[2].partition("\n</answer>")[0]
        score, reasoning = read_reply("pointwise", said)
        right = reasoning.split()[-2] == answer.split()[-1]
        assert reasoning.endswith("=0") == right and not has_false_step(reasoning)
        assert int(score) == STEPS * (not shows_no_steps(answer)) + RIGHT * right


def test_some_answers_are_bare_and_all_are_right() -> None:
    answers = [row["messages"][-1]["content"] for row in list(demonstrations())[JUDGMENTS:]]
    assert 0.3 < sum(map(shows_no_steps, answers)) / len(answers) < 0.5 and not any(map(has_false_step, answers))


def test_the_chosen_answer_shows_more_or_is_right() -> None:
    for row in ranked():
        chosen, rejected = row["chosen"], row["rejected"]
        assert shows_no_steps(chosen) <= shows_no_steps(rejected)
        if shows_no_steps(chosen) == shows_no_steps(rejected):
            assert chosen.split()[-1] != rejected.split()[-1] and not has_false_step(chosen)
