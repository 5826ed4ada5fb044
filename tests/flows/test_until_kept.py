"""ReST-EM that stops sampling a problem once it has enough answers, on stub programs; and the time it will take."""

import json
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.files import file_sha256
from data.rows import Sample, Score
from data.storage import count_rows, read_rows
from flows.rest_em import RestEM, loop
from tasks.history.checkpoint import find_checkpoint
from tasks.loop.loop import run_loop
from tasks.loop.pace import expected_seconds
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import Manifest, OnDrift
from tests.flows.conftest import make_config, prepared

pytestmark = pytest.mark.usefixtures("stubs")

GENERATE = {"samples": 12, "max_tokens": 48}
KEPT = 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, RestEM]:
    """The same run with all samples, and until enough are kept."""
    told: dict[str, Any] = {"select": {"max_per_problem": KEPT}, "reward": {"workers": 2}}
    with prepared(cache):
        made = {}
        for name, until_kept in (("all", False), ("enough", True)):
            sampled = {"generate": GENERATE | {"until_kept": until_kept}}
            made[name] = make_config(tmp_path_factory.mktemp(name), **told, **sampled)
            run_loop("ReST-EM", loop, made[name], OnDrift.REFUSE)
    return made


def of(config: RestEM, path: str) -> Path:
    return config.directory / "iter-1" / path


def test_the_same_is_selected_from_fewer_samples(runs: dict[str, RestEM]) -> None:
    first, second = (of(config, "select/examples.parquet") for config in runs.values())
    assert file_sha256(first) == file_sha256(second)
    drawn = {name: len(list(read_rows(Sample, of(config, "generate/samples")))) for name, config in runs.items()}
    assert KEPT * 100 < drawn["enough"] < 0.9 * drawn["all"] == 0.9 * 1200


def test_the_first_answers_are_drawn_and_no_more_once_enough_are_kept(runs: dict[str, RestEM]) -> None:
    whole = {(s.problem_id, s.index): s for s in read_rows(Sample, of(runs["all"], "generate/samples"))}
    scores = read_rows(Score, of(runs["enough"], "score/scores"))
    drawn, kept = Counter[str](), defaultdict[str, set[str]](set)
    for sample, score in zip(read_rows(Sample, of(runs["enough"], "generate/samples")), scores, strict=True):
        assert sample == whole[sample.problem_id, drawn[sample.problem_id]]
        drawn[sample.problem_id] += 1
        if score.verdict == "correct":
            kept[sample.problem_id].add(sample.text)
    assert len(drawn) == 100 and len(set(drawn.values())) > 3
    for problem, answers in drawn.items():
        assert (answers < 12) <= (len(kept[problem]) >= KEPT)


def test_verdicts_are_of_the_first_round_and_the_report_tells_what_was_spared(runs: dict[str, RestEM]) -> None:
    tallies = [json.loads(of(config, "score/tally.json").read_text()) for config in runs.values()]
    assert sum(tallies[0]["verdicts"].values()) == 1200 and "first_round" not in tallies[0]
    assert sum(tallies[1]["verdicts"].values()) == 200 and tallies[1]["first_round"] == KEPT
    spent = tallies[1]["spent"]
    assert sum(row["problems"] for row in spent.values()) == 100
    assert sum(row["samples"] for row in spent.values()) == count_rows(of(runs["enough"], "generate/samples"))
    assert spent["all"]["samples"] < spent["half or more"]["samples"] < spent["none"]["samples"]
    assert spent["none"]["budget_samples"] == 12 * spent["none"]["problems"]
    page = (runs["enough"].directory / "report.html").read_text()
    assert "Verdicts of the first 2 answers to each problem" in page and "Correct in the first round" in page
    assert "Correct in the first round" not in (runs["all"].directory / "report.html").read_text()


def test_no_answer_is_scored_twice(runs: dict[str, RestEM]) -> None:
    config = runs["enough"]
    assert not list(config.directory.glob("iter-*/.scored-*"))
    log = of(config, "score/log.txt")
    assert not log.exists()  # no scoring program ran, though two processes were asked for


def test_chat_reads_the_sampling_of_such_a_run(runs: dict[str, RestEM]) -> None:
    config = runs["enough"]
    assert find_checkpoint(config.runs_dir, config.run or "").sampling.samples == 12


def test_another_run_is_expected_to_take_as_long_for_each_sample(runs: dict[str, RestEM]) -> None:
    config = runs["all"]
    other = config.model_copy(update={"run": "other", "limit": 50})
    expected = expected_seconds(plan_loop(loop, other, OnDrift.REFUSE), other)
    took = [json.loads(file.read_text()) for file in config.directory.glob("iter-*/generate/manifest.json")]
    per_sample = sum(seconds_of(one) for one in took) / sum(one["samples"] for one in took)
    assert [one["samples"] for one in took] == [1200, 1200]
    assert expected["iter-1/generate"] == pytest.approx(600 * per_sample)
    assert set(expected) >= {"problems", "base", "iter-1/score", "iter-2/train", "final/best"}
    assert None not in expected.values()


def test_nothing_is_expected_of_other_models_or_machines(
    runs: dict[str, RestEM], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runs["all"]
    engine = config.engine.model_copy(update={"max_num_seqs": 7})
    other = config.model_copy(update={"run": "other", "engine": engine})
    assert set(expected_seconds(plan_loop(loop, other, OnDrift.REFUSE), other).values()) == {None}
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    again = config.model_copy(update={"run": "other"})
    assert set(expected_seconds(plan_loop(loop, again, OnDrift.REFUSE), again).values()) == {None}


def test_what_was_not_made_in_one_go_tells_nothing_of_time(
    runs: dict[str, RestEM], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, told = runs["all"], Manifest.model_validate_json
    resumed = lambda data: told(data).model_copy(update={"samples": 0})  # noqa: E731
    monkeypatch.setattr(Manifest, "model_validate_json", staticmethod(resumed))
    other = config.model_copy(update={"run": "other"})
    expected = expected_seconds(plan_loop(loop, other, OnDrift.REFUSE), other)
    assert expected["iter-1/generate"] is None and expected["problems"] is not None


def seconds_of(manifest: dict[str, Any]) -> float:
    ended, started = (datetime.fromisoformat(manifest[name]) for name in ("ended", "started"))
    return (ended - started).total_seconds()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"reward": {"name": "judge"}}, "the reward judge may prefer later ones"),
        ({"reward": {"parts": {"final_answer": {}, "program": {}}}}, "reward final_answer + program may prefer"),
        ({"reward": {"name": "tests.flows.rewards:graded"}}, "Use reward.name: final_answer or program"),
        ({"select": {"min_reward": 0}}, "select.min_reward is 0. Set it between 0 and 1"),
    ],
)
def test_rewards_of_which_the_first_are_not_the_best_are_refused(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says.replace("+", r"\+")):
        make_config(tmp_path, generate=GENERATE | {"until_kept": True}, **changed)
