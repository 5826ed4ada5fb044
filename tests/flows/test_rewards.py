"""Rewards in a loop: in several processes, ahead of their turn, a judge, and several that make one."""

import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import tasks.rollouts.scoring
from data.rewards import RewardError
from data.rows import Example, Score
from data.scoring import TooManyErrorsError
from data.storage import read_rows
from flows.rest_em import RestEM
from tests.flows.conftest import make_config, write_reward_model
from tests.flows.test_rest_em import history, run

JUDGE = {"endpoint": "http://localhost:9/v1", "model": "a judge"}


@pytest.fixture(autouse=True)
def _stub_programs(stubs: None) -> None:
    pass


def digests(config: RestEM) -> dict[str, str]:
    files = sorted((config.directory / "iter-1").glob("s[ce]*/**/*.parquet"))
    return {str(f.relative_to(config.directory)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def small(tmp_path: Path, name: str, **changes: object) -> RestEM:
    return make_config(tmp_path, run=name, iterations=1, **changes)


def scores(config: RestEM) -> list[Score]:
    return list(read_rows(Score, config.directory / "iter-1" / "score" / "scores"))


def test_who_scores_and_when_does_not_change_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alone = small(tmp_path, "alone")
    run(alone)
    several = small(tmp_path, "several", reward={"workers": 2})
    run(several)
    assert digests(several) == digests(alone)

    with monkeypatch.context() as patched:
        patched.setattr(tasks.rollouts.scoring, "SOON_SECONDS", 0.0)
        soon = small(tmp_path, "soon")
        run(soon)
    assert digests(soon) == digests(alone)
    assert list(soon.directory.glob("iter-1/score/scorer.json")), "one shard took too long, but nobody helped"

    scored = []
    here = tasks.rollouts.scoring.score_shard
    monkeypatch.setattr(
        tasks.rollouts.scoring, "score_shard", lambda *told: (scored.append(told[2].parent.parent), here(*told))
    )
    ahead = small(tmp_path, "ahead", reward={"ahead": True})
    run(ahead)
    assert digests(ahead) == digests(alone)
    assert scored and not [folder for folder in scored if folder.name == "generate"]
    assert not list(ahead.directory.glob("iter-1/.scored*"))
    assert "Scoring during generation has stopped" not in caplog.text


def test_what_fails_ahead_is_scored_in_its_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.rollouts.scoring, "scoring_program", lambda *told: ["/bin/false"])
    config = small(tmp_path, "stubborn", reward={"ahead": True})
    run(config)
    assert "the answers are scored afterward" in caplog.text
    assert len(scores(config)) == 400


@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_reward_failed_on_is_scored_again_once_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    server = tmp_path / "server"
    monkeypatch.setenv("FLAKY_SERVER", str(server))
    reward = {"name": "tests.flows.rewards:needs_a_server", "ahead": ahead}
    config = small(tmp_path, "flaky", reward=reward, evaluate={"reward": {}, "samples": 4, "pass_at": [1, 4]})
    with pytest.raises(TooManyErrorsError, match="the server is down"):
        run(config)
    server.touch()
    run(config)
    assert {score.verdict for score in scores(config)} == {"correct", "wrong"}


def test_a_judge_alone_decides_what_is_learned(tmp_path: Path) -> None:
    config = small(tmp_path, "judged", reward={"name": "judge", "judge": JUDGE}, select={"min_reward": 4})
    run(config)
    rows = scores(config)
    assert {(s.value, s.verdict, s.grader) for s in rows} == {(5.0, "correct", "judge@2"), (1.0, "wrong", "judge@2")}
    assert {e.weight for e in read_rows(Example, config.directory / "iter-1" / "select" / "examples.parquet")} == {5.0}
    assert json.loads((config.directory / "iter-1" / "score" / "tally.json").read_text())["judge"]["parse_rate"] == 1.0
    _, runs = history(config)
    assert [r.data.metrics["judge/parse_rate"] for r in runs if r.data.tags.get("iteration") == "1"] == [1.0]


def test_a_reward_model_judges_what_is_learned(tmp_path: Path) -> None:
    folder = write_reward_model(tmp_path / "model")
    model, select = {"path": str(folder), "passes_at": 0.5}, {"min_reward": -1000}
    config = small(tmp_path, "modelled", reward={"name": "reward-model", "model": model}, select=select)
    run(config)
    rows = scores(config)
    assert {row.grader for row in rows} == {"reward-model@2"}
    assert rows == list(read_rows(Score, config.directory / "iter-1" / "score" / "scores-reward-model"))
    assert {row.value for row in rows} == {3.0}


def test_prompts_alone_are_enough_for_a_reward_that_looks_at_no_reference(tmp_path: Path) -> None:
    rows = [{"question_id": n, "turns": [f"Write story {n}."]} for n in range(90)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = {"name": "tests.flows.rewards:brief"}
    config = small(tmp_path, "prompts", problems=tmp_path / "prompts.jsonl", reward=reward)
    summary = run(config)
    assert {score.verdict for score in scores(config)} == {"correct", "wrong"}
    examples = list(read_rows(Example, config.directory / "iter-1" / "select" / "examples.parquet"))
    assert examples and {example.source for example in examples} == {"prompts.jsonl"}
    assert [number for number, row in enumerate(summary["iterations"]) if row] == [0, 1]


def test_several_rewards_make_one_and_each_is_kept(tmp_path: Path) -> None:
    parts = {"final_answer": {"gate": True}, "judge": {"weight": 0.5}}
    length = {"free_tokens": 1, "per_token": 0.25}
    reward = {"parts": parts, "length": length, "judge": JUDGE, "passes_at": 2.0}
    config = small(tmp_path, "parts", reward=reward)
    run(config)
    rows = scores(config)
    right = [s for s in rows if s.verdict == "correct"]
    assert {s.value for s in right} == {1.0 + 0.5 * 5 - 2 * 0.25} and {s.value for s in rows} - {3.0} == {0.0}
    assert right[0].parts == [
        {"name": "final_answer", "value": 1.0, "verdict": "correct"},
        {"name": "judge", "value": 5.0, "verdict": "correct"},
    ]
    assert right[0].grader == "final_answer@4+judge@2"
    assert "final_answer: " in right[0].explanation
    assert "judge: 5.00 of 5 (5, 5, 5): as the reference" in right[0].explanation


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ({"length": {}}, "reward.length is subtracted from a sum of rewards"),
        ({"name": "judge", "judge": JUDGE | {"kind": "pairwise"}}, "Use another reward for held-out problems"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, reward: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        small(tmp_path, "refused", reward=reward)


def test_rewards_for_problems_of_different_kinds_are_refused(tmp_path: Path) -> None:
    config = small(tmp_path, "mixed", reward={"parts": {"final_answer": {}, "program": {}}})
    with pytest.raises(RewardError, match="final_answer and program need problems of different kinds"):
        run(config)
