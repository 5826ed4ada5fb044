"""RLAIF on stub programs: a labeler that knows the references; a policy or a reward model learns its labels."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.labels import Label
from data.rewards import RewardError
from data.rows import Example, Pair, Problem
from data.storage import read_rows
from flows.commands import history
from flows.rlaif import RLAIF, loop
from models.loading import ModelError
from tasks.datasets.select import NothingKeptError
from tasks.loop.loop import run_loop
from tasks.loop.preflight import check, plan_loop
from tasks.policies.asked_model import AskedModelError
from tasks.policies.model_folder import folder_digest
from tasks.stage.contract import OnDrift, Status
from tests.flows.conftest import make_history, prepared, small
from tests.flows.test_reward_model import rows
from tests.flows.test_sft_dpo import write

pytestmark = pytest.mark.usefixtures("stubs")

TRAIN = {"steps": 5, "problems": 16, "batch_size": 16, "dtype": "float32"}


def make(folder: Path, **changes: Any) -> RLAIF:
    make_history(folder / "runs")
    told = small(folder) | {"iterations": 2, "train": TRAIN, "launch": {"micro_batch_size": 16}, "answers": 4}
    told |= {"generate": {"max_tokens": 48}, "reward_train": {"batch_size": 16}, "labeler": {"max_reasoning": 100}}
    return RLAIF.model_validate(told | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RLAIF:
    folder = tmp_path_factory.mktemp("rlaif")
    shown = [{"question": f"Say {n}.", "answer": f"{n}"} for n in range(40)]
    data = {"demonstrations": write(folder / "shown.jsonl", shown), "ranked": write(folder / "pairs.jsonl", rows(40))}
    labeler = {"max_reasoning": 100, "principles": ["Be kind.", "Be brief."]}
    config = make(folder, labeler=labeler, sft_train={"batch_size": 16}, limit_ranked=30, **data)
    with prepared(cache):
        check(loop, config, OnDrift.REFUSE)
        run_loop("RLAIF", loop, config, OnDrift.REFUSE)
    return config


def read(config: RLAIF, name: str) -> dict[str, Any]:
    return dict(json.loads((config.directory / name).read_text()))


def test_the_start_labels_what_the_policy_of_the_moment_answers(finished: RLAIF) -> None:
    for number, before in ((1, "sft/train"), (2, "iter-1/train")):
        labeled, drawn = (read(finished, f"iter-{number}/{stage}/manifest.json") for stage in ("label", "generate"))
        start, policy = (folder_digest(finished.directory / name / "policy") for name in ("sft/train", before))
        assert labeled["inputs"]["labeler"] == start and drawn["inputs"]["policy"] == policy
        told = read(finished, f"iter-{number}/label/judge-program.json")
        assert told["policy"] == str(finished.directory / "sft/train/policy")


def test_pairs_have_labels_and_are_right_over_wrong(finished: RLAIF) -> None:
    references = {p.id: p.reference for p in read_rows(Problem, finished.directory / "problems/train.parquet")}
    for number in (1, 2):
        folder = finished.directory / f"iter-{number}"
        pairs = [pair for name in ("pairs", "held_out") for pair in read_rows(Pair, folder / f"pair/{name}.parquet")]
        for pair in pairs:
            assert pair.chosen.endswith(f" {references[pair.problem_id]}") and pair.rejected.endswith(" -1")
            assert pair.label == pytest.approx(0.9)
        labels = list(read_rows(Label, folder / "label/labels"))
        assert len(pairs) == sum(label.value != 0.5 for label in labels) and {label.value for label in labels} >= {0.5}
        assert {label.principle for label in labels} == {"Be kind.", "Be brief."}
        counts = read(finished, f"iter-{number}/pair/selection.json")
        assert counts["undecided"] == sum(label.value == 0.5 for label in labels)
        assert counts["samples"] == len(labels) and counts["held out"] > 0
    (found,) = read(finished, "iter-1/verify/validation/measures.json").values()
    assert found["value"]["value"] == 1.0


def test_the_labeler_is_measured_once_on_peoples_pairs(finished: RLAIF) -> None:
    found = read(finished, "ranked/judge/validation/measures.json")["judge_agreement"]
    assert found["rows"] == 30 and found["value"]["value"] == 0.9
    assert found["details"]["place_bias"] == 0.0 and 0 < found["details"]["entropy_bits"] < 1
    report = (finished.directory / "report.html").read_text()
    assert "agreement with people" in report and "RLAIF raised test accuracy" in report


def test_another_start_has_nothing_to_do_and_a_pair_is_traced(
    finished: RLAIF, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {planned.status for planned in plan_loop(loop, finished, OnDrift.REFUSE).plan} == {Status.REUSE}
    pair = next(read_rows(Pair, finished.directory / "iter-2/pair/pairs.parquet"))
    where = [finished.run, f"iter-2/{pair.problem_id}/{pair.index}", "--runs-dir", str(finished.runs_dir)]
    assert history.trace(where) == 0
    told = capsys.readouterr().out
    assert told.count("sample      ") == 2 and "chosen      " in told and "the rejected answer above" in told
    assert "score       " not in told and "label       90.0% that the chosen answer is better" in told
    assert "shown first: 95.0%" in told and "shown second: 85.0%" in told
    assert "| as the reference" in told and "| the same" in told and "Be " in told
    assert "labeler     sft/train/policy, digest " in told and "DIFFERS" not in told


def test_a_reward_model_learns_the_labels_and_the_policy_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make(tmp_path, learn="reward-model", forced=True)  # the stub prefers nothing
    check(loop, config, OnDrift.REFUSE)
    run_loop("RLAIF", loop, config, OnDrift.REFUSE)
    pairs = list(read_rows(Pair, config.directory / "reward/pair/pairs.parquet"))
    assert pairs and all(pair.label == pytest.approx(0.9) for pair in pairs)
    trained = read(config, "reward/train/manifest.json")
    assert trained["inputs"]["start"] == folder_digest(config.directory / "base/policy")
    told = read(config, "iter-2/train/program.json")
    assert told["judged_by"]["models"]["reward-model"]["model"].endswith("reward/train/policy")
    assert not (config.directory / "iter-1/pair").exists() and (config.directory / "iter-1/proxy").exists()
    assert {planned.status for planned in plan_loop(loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}
    key = f"reward/{pairs[0].problem_id}/{pairs[0].index}"
    assert history.trace([config.run, key, "--runs-dir", str(config.runs_dir)]) == 0
    told = capsys.readouterr().out
    assert "labeler     base/policy, digest " in told and "DIFFERS" not in told
    assert read(config, "reward/label/labels.json")["labeled"] > 0


def test_a_reward_model_that_cannot_be_measured_is_not_learned(tmp_path: Path) -> None:
    config = make(tmp_path, learn="reward-model", held_out_pairs=0.001)
    with pytest.raises(NothingKeptError, match="raise held_out_pairs"):
        run_loop("RLAIF", loop, config, OnDrift.REFUSE)


def test_nothing_with_the_prompts_of_peoples_pairs_is_mixed_in(tmp_path: Path) -> None:
    people = write(tmp_path / "pairs.jsonl", rows(8))
    asked = [json.loads(line)["prompt"] for line in people.read_text().splitlines()]
    shown = [{"question": text, "answer": "1"} for text in [*asked, *(f"Say {n}." for n in range(20))]]
    told = {"demonstrations": write(tmp_path / "shown.jsonl", shown), "sft_train": {"batch_size": 16}, "ranked": people}
    config = make(tmp_path, learn="reward-model", forced=True, train=TRAIN | {"ptx": 1.0}, iterations=1, **told)
    run_loop("RLAIF", loop, config, OnDrift.REFUSE)
    for name in ("sft", "mix"):
        mine = list(read_rows(Example, config.directory / f"{name}/examples/examples.parquet"))
        assert {row.messages[0]["content"] for row in mine} == {f"Say {n}." for n in range(20)}


def test_settings_of_another_way_to_learn_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = make(tmp_path, generate={"max_tokens": 48, "samples": 2}, reward_train={"dtype": "float32"})
    config.check_inputs()
    assert "With learn: dpo, these settings have no effect: train, generate.samples." in caplog.text


def test_answers_have_room_in_the_model_that_scores_them(tmp_path: Path) -> None:
    config = make(tmp_path, learn="direct", generate={"max_tokens": 900})
    with pytest.raises(RewardError, match=r"Lower generate.max_tokens"):
        check(loop, config, OnDrift.REFUSE)


def test_what_has_no_label_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(tmp_path, iterations=1, labeler={"max_reasoning": 100, "clamp": 0.4})
    monkeypatch.setenv("STUB_SILENT", (tmp_path / "none").name)
    run_loop("RLAIF", loop, config, OnDrift.REFUSE)
    labels = list(read_rows(Label, config.directory / "iter-1/label/labels"))
    assert {label.value for label in labels} == {0.4, 0.5, 0.6}
    silent = make(tmp_path, run="silent", iterations=1)
    monkeypatch.setenv("STUB_SILENT", " ".join({label.problem_id for label in labels}))
    with pytest.raises(NothingKeptError, match=r"none is a pair to learn from.*no label.*why there are no labels"):
        run_loop("RLAIF", loop, silent, OnDrift.REFUSE)
    assert read(silent, "iter-1/label/labels.json")["first_failure"] == "the labeler is silent"
    assert not (silent.directory / "iter-1/pair").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"answers": 3}, "multiple of 2"),
        ({"undecided": 0.4}, "greater than or equal to 0"),
        ({"undecided": 0.6, "labeler": {"clamp": 0.4}}, "no label is higher than 0.6"),
        ({"labeler": {"model_revision": "main"}}, "belong to a model of its own"),
        ({"learn": "direct", "reward": {"direct": {"model_code": "allow"}}}, "belong to a model of its own"),
        ({"labeler": {"clamp": 0.5}}, "less than 0"),
        ({"labeler": {"max_reasoning": 0, "endpoint": "http://localhost:1/v1"}}, "Extra inputs"),
        ({"dpo": {"loss": "hinge"}}, "logistic"),
        ({"dpo": {"batch_size": 24}}, "dpo.batch_size 24 is not a multiple"),
        ({"learn": "reward-model", "reward": {"model": {"path": "x"}}}, "names a finished one"),
        ({"learn": "reward-model", "reward": {"name": "final_answer"}}, "names a finished one"),
        ({"stop": {"rule": "overoptimized"}}, "has only one"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(tmp_path, **changes)


def test_a_labeler_that_cannot_work_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        check(loop, make(tmp_path, labeler={"model": str(tmp_path / "empty")}), OnDrift.REFUSE)
    with pytest.raises(AskedModelError, match=r"Lower labeler.max_reasoning, now 600"):
        check(loop, make(tmp_path, labeler={}), OnDrift.REFUSE)


def test_a_score_that_a_model_expects_is_learned_directly(tmp_path: Path) -> None:
    config = make(tmp_path, learn="direct", reward={"direct": {"dtype": "float32", "rubric": "From 1 to 10?"}})
    check(loop, config, OnDrift.REFUSE)
    run_loop("RLAIF", loop, config, OnDrift.REFUSE)
    for number in (1, 2):
        told = read(config, f"iter-{number}/train/program.json")
        (model,) = told["judged_by"]["models"].values()
        assert model["model"] == str(config.directory / "base/policy") and model["rubric"] == "From 1 to 10?"
        inputs = read(config, f"iter-{number}/train/manifest.json")["inputs"]
        assert inputs["direct"] == inputs["reference"] == folder_digest(config.directory / "base/policy")
    assert not (config.directory / "iter-1/proxy").exists()
    assert {planned.status for planned in plan_loop(loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reward": {"name": "reward-model"}}, "but the rewards are reward-model"),
        ({"ranked": "pairs.jsonl"}, "learn: direct has none"),
        ({"train": TRAIN | {"value_from": "reward-model"}}, "Set train.value_from: policy"),
    ],
)
def test_direct_scores_that_cannot_be_meant_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(tmp_path, learn="direct", **changes)


def test_a_model_of_its_own_that_scores_directly_is_checked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        check(
            loop, make(tmp_path, learn="direct", reward={"direct": {"model": str(tmp_path / "empty")}}), OnDrift.REFUSE
        )
