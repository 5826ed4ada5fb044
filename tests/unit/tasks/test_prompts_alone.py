"""Data sets of prompts alone: taken where no reward looks at a reference, refused with a sentence where one does."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.prepare.prepare import prepare
from data.prepare.sources import DataFileError
from data.rows import Problem, Score
from data.storage import read_rows
from flows.commands.cli import main
from flows.rest_em import RestEM, loop
from flows.sft import SFT
from flows.spin import Spin
from tasks.datasets.problems import note_further
from tasks.loop import preflight
from tasks.loop.preflight import check
from tasks.rollouts.rewards import RewardConfig, problems_judged_by
from tasks.stage.contract import OnDrift

JUDGE = {"name": "judge", "judge": {"endpoint": "http://localhost:9/v1", "model": "a judge"}}


def brevity(problem: Problem, completion: str) -> Score:
    return Score(1.0 if len(completion) < 20 else 0.0, "correct" if len(completion) < 20 else "wrong")


brevity.reads = "prompts"  # type: ignore[attr-defined]
BRIEF, EXACT = {"name": f"{__name__}:brevity"}, {"name": "final_answer"}

PROMPTS = [{"question_id": n, "turns": [f"Write story {n}.", "Another."]} for n in range(60)]
PAIRS = [{"prompt": f"Write story {n}.", "chosen": "Once.", "rejected": "No."} for n in range(60)]
GOLD = [{"instruction": f"Write story {n}.", "output": "Once\nupon."} for n in range(60)]
SUMS = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(60)]
PROGRAMS = [{"text": f"Write f{n}.", "code": "def f(): pass", "test_list": ["assert f() is None"]} for n in range(60)]


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preflight, "_checked", set())


def settings(problems: list[dict[str, Any]], reward: Any, held_out: Any = None, **others: Any) -> dict[str, Any]:
    """A run's settings; where held-out rows are given, they are in files of their own."""
    Path("problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    told = {"problems": "problems.jsonl", "reward": reward, "generate": {"max_tokens": 32}, **others}
    for number, name in enumerate(("validation", "test") if held_out else ()):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in held_out[number::2]))
        told[name] = f"{name}.jsonl"
    return told


@pytest.mark.parametrize("reward", [JUDGE, BRIEF, {"parts": {"judge": {}, BRIEF["name"]: {}}, "judge": JUDGE["judge"]}])
@pytest.mark.parametrize(
    "rows", [PROMPTS, PAIRS, GOLD, SUMS, PROGRAMS], ids=["mt-bench", "pairs", "gold", "sums", "programs"]
)
def test_a_reward_that_looks_at_no_reference_takes_prompts_of_any_data_set(
    tmp_path: Path, rows: list[dict[str, Any]], reward: Any
) -> None:
    config = RestEM.model_validate(settings(rows, reward))
    assert check(loop, config, OnDrift.REFUSE).plan
    tally, found = prepare(config.preparation(0), tmp_path / "splits", note_further)
    assert (tally.rows, sum(kept.total() for kept in found.sources.values())) == (60, 60)
    if rows is PROMPTS:
        problems = list(read_rows(Problem, tmp_path / "splits" / "train.parquet"))
        assert {(problem.reference, problem.response) for problem in problems} == {(None, None)}


@pytest.mark.parametrize(
    ("rows", "reward", "held_out", "measured"),
    [
        (PROMPTS, JUDGE, SUMS, EXACT),
        (PROMPTS, BRIEF, SUMS, EXACT),
        (SUMS, EXACT, PROMPTS, JUDGE),
        (PROGRAMS, {"name": "program"}, SUMS, EXACT),
    ],
)
def test_training_and_measuring_need_what_their_own_reward_reads(
    rows: Any, reward: Any, held_out: Any, measured: Any
) -> None:
    told = settings(rows, reward, held_out, evaluate={"reward": measured})
    assert check(loop, RestEM.model_validate(told), OnDrift.REFUSE).plan


@pytest.mark.parametrize(
    ("rows", "reward", "held_out", "measured", "says"),
    [
        (PROMPTS, EXACT, None, None, "It can serve as prompts, not as problems"),
        (PROMPTS, {"name": "program"}, None, None, "It can serve as prompts, not as programs"),
        (PROMPTS, JUDGE, None, EXACT, "It can serve as prompts, not as problems"),
        (SUMS, EXACT, PROMPTS, None, "validation.jsonl, line 1: this is mt-bench"),
        (PROMPTS, {"parts": {"judge": {}, "final_answer": {}}, "judge": JUDGE["judge"]}, None, None, "not as problems"),
    ],
)
def test_where_a_reward_looks_at_a_reference_they_are_refused(
    rows: Any, reward: Any, held_out: Any, measured: Any, says: str
) -> None:
    told = settings(rows, reward, held_out, evaluate={"reward": measured})
    with pytest.raises(DataFileError) as refused:
        check(loop, RestEM.model_validate(told), OnDrift.REFUSE)
    assert says in str(refused.value)
    assert "Its rows have no answers" in str(refused.value) and "such as judge or reward-model" in str(refused.value)


@pytest.mark.parametrize("flow", [SFT, Spin])
@pytest.mark.parametrize("held_out", [None, SUMS])
def test_a_flow_that_learns_gold_answers_refuses_them(flow: Any, held_out: Any) -> None:
    told = settings(PROMPTS, JUDGE, held_out)
    with pytest.raises(DataFileError, match=r"mt-bench.*Its rows have no answers.*not as demonstrations"):
        preflight.check_problems(flow.model_validate(told), OnDrift.REFUSE)


@pytest.mark.parametrize("flow", [SFT, Spin])
def test_gold_answers_that_only_a_model_judges_need_no_held_out_problems(tmp_path: Path, flow: Any) -> None:
    config = flow.model_validate(settings(GOLD, JUDGE))
    preflight.check_problems(config, OnDrift.REFUSE)
    prepare(config.preparation(0), tmp_path / "splits", note_further)
    assert {p.response for p in read_rows(Problem, tmp_path / "splits" / "train.parquet")} == {"Once\nupon."}


def test_rewards_that_look_at_none_add_nothing_to_what_others_need() -> None:
    judge, brief, exact = (RewardConfig.model_validate(told) for told in (JUDGE, BRIEF, EXACT))
    for configs, use, without in (
        ([judge], "prompts", True),
        ([brief, judge], "prompts", True),
        ([exact, brief], "problems", False),
    ):
        found, can_grade = problems_judged_by(*configs)
        assert (found, can_grade(None), can_grade("#### 4")) == (use, without, True)


def test_inspect_and_format_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    settings(PROMPTS, JUDGE)
    assert main(["data", "inspect", "problems.jsonl"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "can be used as prompts; here they are read as prompts. Its rows have no answers" in said
    assert "60 rows gave 60 prompts, 60 of them usable" in said
    assert main(["data", "format", "problems.jsonl", "--output", "rows"]) == 0
    assert "60 rows read as prompts" in " ".join(capsys.readouterr().out.split())
    assert check(loop, RestEM.model_validate(settings(PROMPTS, JUDGE) | {"problems": "rows"}), OnDrift.REFUSE).plan
    with pytest.raises(DataFileError, match="the answer None has no final answer"):
        check(loop, RestEM.model_validate(settings(PROMPTS, EXACT) | {"problems": "rows"}), OnDrift.REFUSE)
