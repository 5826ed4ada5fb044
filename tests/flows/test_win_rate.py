"""A win rate on stub programs: who is asked what, in both orders, and what the two stages leave behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.judge_questions import Opinion
from data.measures import Estimated
from data.rows import Problem, Sample
from data.storage import read_rows, write_rows
from models.config import EngineConfig, SamplingConfig
from tasks.report.wording import detail_label
from tasks.rollouts.generate import Sampling
from tasks.rollouts.measured import load_measured
from tasks.rollouts.win_rate import ANSWERS, Comparing, WinRateError, answer_prompts, measure_win_rate
from tasks.rollouts.win_rate_settings import WinRateConfig
from tasks.stage.contract import Artifact, OnDrift, Outcome, Stage
from tasks.stage.run import Result, Run, open_run
from tasks.tracking.contents import held_out
from tests.flows.stubs.common import write_weights

pytestmark = pytest.mark.usefixtures("stubs")

SET = "validation"
CONFIG = WinRateConfig.model_validate({"judge": {"endpoint": "http://localhost:9/v1", "model": "a judge"}})
SAMPLING = Sampling(SamplingConfig(max_tokens=48), EngineConfig(shard_size=4))  # so that there are several shards
RIGHT, LONGER, WRONG = "#### 5", "that makes #### 5", "#### 6"
LENGTHS = {"length_ours", "length_theirs"}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    with open_run(tmp_path / "run", {}, OnDrift.REFUSE) as opened:
        yield opened


def prompts(run: Run, count: int, gold: Callable[[int], str | None] = lambda n: None) -> dict[str, Artifact]:
    def work(attempt: Path) -> Outcome:
        problems = [
            Problem(f"p{n}", [{"role": "user", "content": f"{n}?"}], "5", gold(n), "", SET) for n in range(count)
        ]
        write_rows(Problem, attempt / f"{SET}.parquet", problems)
        return Outcome()

    made = run.execute(Stage("problems", 1, {"count": count}, {}), work)
    return {SET: replace(made.artifact(f"{SET}.parquet"), expected=count)}


def answers(run: Run, name: str, texts: list[str], cut: tuple[int, ...] = (), of: str = SET) -> Result:
    """A stage that holds these answers to p0, p1, …; some were cut off at the token limit."""

    def work(attempt: Path) -> Outcome:
        (attempt / of / ANSWERS).mkdir(parents=True)
        rows = [
            Sample(f"p{n}", 0, text, [1], "length" if n in cut else "stop", name, 0, "") for n, text in enumerate(texts)
        ]
        write_rows(Sample, attempt / of / ANSWERS / "000000.parquet", rows)
        return Outcome()

    return run.execute(Stage(name, 1, {"texts": texts}, {}), work)


def measured(
    run: Run, name: str, ours: Result, sets: dict[str, Artifact], opponents: dict[str, Result | None], **changes: Any
) -> tuple[Result, Estimated]:
    config = WinRateConfig.model_validate(CONFIG.model_dump() | changes)
    result = measure_win_rate(run.place(name), ours, sets, opponents, Comparing(config, SAMPLING))
    found = load_measured([result]).get(SET, "win_rate")
    assert found is not None
    return result, found


def policy(run: Run, name: str, skill: float) -> Artifact:
    folder = run.directory / name
    folder.mkdir()
    write_weights(folder)
    (folder / "skill.json").write_text(f'{{"skill": {skill}}}')
    return Artifact(folder, name)


def test_a_better_policy_wins_and_both_sides_answer_once(run: Run) -> None:
    sets = prompts(run, 40)
    base, better = (
        answer_prompts(run.place(f"iter-{n}"), policy(run, f"policy-{n}", skill), sets, Comparing(CONFIG, SAMPLING))
        for n, skill in enumerate((0.3, 0.9))
    )
    rows = list(read_rows(Sample, base.path / SET / ANSWERS))
    assert [(s.problem_id, s.index) for s in rows] == [(f"p{n}", 0) for n in range(40)]
    assert base.finished is not None
    assert not any(name.startswith(".") for name in base.finished.manifest.outputs)
    _, ours = measured(run, "iter-1", better, sets, {"base": base})
    _, theirs = measured(run, "back", base, sets, {"better": better})
    assert ours.value.low > 0.5
    assert ours.rows == 40
    assert theirs.value.value == pytest.approx(1 - ours.value.value)
    assert (theirs.value.low, theirs.value.high) == pytest.approx((1 - ours.value.high, 1 - ours.value.low))
    controlled = "length_controlled"
    assert theirs.details[controlled] == pytest.approx(1 - ours.details[controlled])
    assert theirs.details[f"{controlled}_low"] == pytest.approx(1 - ours.details[f"{controlled}_high"])
    assert (ours.details["parse_rate"], ours.details["flip_rate"]) == (1.0, 0.0)


def test_who_answers_the_same_is_even_without_a_judge(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.rollouts.judge_reward.Judge.run", None)
    base = answers(run, "base-answers", [RIGHT, WRONG])
    _, found = measured(run, "iter-0", base, prompts(run, 2), {"base": base})
    assert (found.value.value, found.rows, found.details["same"]) == (0.5, 2, 2)
    assert "parse_rate" not in found.details


def test_answers_that_were_cut_off_are_compared_and_counted(run: Run) -> None:
    ours = answers(run, "ours", [RIGHT, WRONG, RIGHT], cut=(0, 1))
    theirs = answers(run, "theirs", [WRONG, RIGHT, LONGER])
    result, found = measured(run, "iter-0", ours, prompts(run, 3), {"base": theirs})
    rows = load_measured([result]).rows(SET, "win_rate")
    assert [(row.problem_id, row.value) for row in rows] == [("p0", 1.0), ("p1", 0.0), ("p2", 0.5)]
    assert (found.details["truncated_ours"], found.details["truncated_theirs"]) == (2, 0)
    assert (found.details["length_ours"], found.details["length_theirs"]) == (6, (6 + 6 + 17) / 3)
    opinions = list(read_rows(Opinion, result.path / SET / "base" / "judged" / "opinions"))
    assert [(o.problem_id, o.swapped) for o in opinions] == [(f"p{n}", swapped) for n in range(3) for swapped in (0, 1)]


def test_the_first_opponent_decides_and_others_are_told(run: Run) -> None:
    ours = answers(run, "ours", [RIGHT, RIGHT])
    opponents: dict[str, Result | None] = {
        "base": answers(run, "base-answers", [WRONG, WRONG]),
        "previous": answers(run, "previous-answers", [WRONG, RIGHT]),
    }
    result, found = measured(run, "iter-0", ours, prompts(run, 2), opponents)
    assert (found.value.value, found.details["previous_win_rate"]) == (1.0, 0.75)
    assert found.details["previous_same"] == 1
    assert [name for name in found.details if detail_label(name) == name.replace("_", " ")] == []
    assert result.finished is not None
    assert (result.finished.manifest.rows_in, result.finished.manifest.rows_out) == (4, 4)


def test_against_gold_prompts_without_an_answer_are_left_out(run: Run) -> None:
    sets = prompts(run, 4, gold=lambda n: LONGER if n else None)
    result, found = measured(run, "iter-0", answers(run, "ours", [RIGHT, RIGHT, WRONG, LONGER]), sets, {"gold": None})
    assert [row.value for row in load_measured([result]).rows(SET, "win_rate")] == [0.5, 0.0, 0.5]
    assert found.details["same"] == 1
    assert result.finished is not None
    assert result.finished.manifest.dropped == {"no gold answer": 1}


def test_without_any_gold_answer_there_is_nothing_to_compare_with(run: Run) -> None:
    ours, sets = answers(run, "ours", [RIGHT]), prompts(run, 1)
    with pytest.raises(WinRateError, match=r"No validation prompt has a gold answer.*Put base first"):
        measured(run, "iter-0", ours, sets, {"gold": None})


@pytest.mark.parametrize("against", [("gold",), ("gold", "base"), ("base", "gold")])
def test_a_final_set_without_gold_answers_is_left_out_and_counted(run: Run, against: tuple[str, ...]) -> None:
    ours, sets = answers(run, "ours", [RIGHT, RIGHT], of="transfer"), prompts(run, 2)
    opponents = {"gold": None, "base": answers(run, "base-answers", [WRONG, WRONG], of="transfer")}
    final, told = {"transfer": sets[SET]}, {name: opponents[name] for name in against}
    result = measure_win_rate(run.place("final/best"), ours, final, told, Comparing(CONFIG, SAMPLING))
    assert result.finished is not None
    assert result.finished.manifest.dropped == {"no gold answer": 2}
    found = load_measured([result]).get("transfer", "win_rate")
    assert (found.value.value if found else None) == (1.0 if against[0] == "base" else None)


def test_replies_that_cannot_be_read_count_for_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sets, ours, theirs = prompts(run, 3), answers(run, "ours", [RIGHT] * 3), answers(run, "theirs", [WRONG] * 3)
    monkeypatch.setenv("STUB_SILENT", "p1")
    result, found = measured(run, "iter-0", ours, sets, {"base": theirs})
    assert (found.value.value, found.rows, found.details["unread"]) == (1.0, 2, 1)
    assert result.finished is not None
    assert result.finished.manifest.dropped == {"no reply of the judge that can be read": 1}
    monkeypatch.setenv("STUB_SILENT", "p1 p2")
    with pytest.raises(WinRateError, match=r"to 2 of 3 comparisons with base.*First failure: .*Use another judge"):
        measured(run, "again", ours, sets, {"base": theirs})


def test_the_difference_is_of_the_prompts_that_could_be_judged_for_both(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets, found = prompts(run, 4, gold=lambda n: WRONG), []
    for name, text, silent in (("base", RIGHT, "p1"), ("ours", LONGER, "p2")):
        monkeypatch.setenv("STUB_SILENT", silent)
        result, _ = measured(run, f"{name}-wins", answers(run, name, [text] * 4), sets, {"gold": None})
        found.append({"win_rate": result})
    _, compared = held_out((found[0], found[1]), seed=0)[SET]["win_rate"]
    assert (compared.against["base"].value, compared.details["left_out_of_the_difference"]) == (0.0, 2)


def test_only_the_first_prompts_are_compared(run: Run) -> None:
    sets = prompts(run, 5)
    few = WinRateConfig.model_validate(CONFIG.model_dump() | {"prompts": 2})
    made = answer_prompts(run.place("iter-0"), policy(run, "policy", 1.0), sets, Comparing(few, SAMPLING))
    assert [s.problem_id for s in read_rows(Sample, made.path / SET / ANSWERS)] == ["p0", "p1"]
    others = answers(run, "others", [WRONG] * 5)
    assert measured(run, "iter-0", made, sets, {"base": others}, prompts=2)[1].rows == 2


def test_a_finished_measurement_is_reused_and_another_judge_is_drift(run: Run) -> None:
    sets, ours, theirs = prompts(run, 2), answers(run, "ours", [RIGHT] * 2), answers(run, "theirs", [WRONG] * 2)
    first, _ = measured(run, "iter-0", ours, sets, {"base": theirs})
    again, _ = measured(run, "iter-0", ours, sets, {"base": theirs})
    assert first.finished and again.finished
    assert (first.finished.reused, again.finished.reused) == (False, True)
    planning = Run(run.directory, planning=True)
    told = CONFIG.judge.model_dump() | {"model": "another judge"}
    other = WinRateConfig.model_validate({"judge": told})
    measure_win_rate(planning.place("iter-0"), ours, sets, {"base": theirs}, Comparing(other, SAMPLING))
    assert [planned.status.value for planned in planning.plan] == ["drift"]
