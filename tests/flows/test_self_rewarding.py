"""Self-Rewarding on stub programs: the policy of the moment judges, and its best answer is learned over its worst."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.arithmetic import embedded_problems
from data.judging import ENTROPY, WITH_ITSELF
from data.prepare.new_prompts import MadeUp
from data.prepare.sources import DataFileError
from data.rewards import RewardError
from data.rows import Example, Pair, Problem, Sample
from data.storage import read_rows
from flows.commands import history
from flows.self_rewarding import SelfRewarding, loop
from tasks.datasets.select import NothingKeptError
from tasks.loop.loop import run_loop
from tasks.loop.preflight import check, plan_loop
from tasks.policies.asked_model import AskedModelError
from tasks.policies.model_folder import folder_digest
from tasks.stage.contract import OnDrift, Status
from tasks.stage.process import ChildError
from tests.flows.conftest import make_history, prepared, small
from tests.flows.test_reward_model import rows
from tests.flows.test_sft_dpo import write

pytestmark = pytest.mark.usefixtures("stubs")


def make(folder: Path, **changes: Any) -> SelfRewarding:
    make_history(folder / "runs")
    told = small(folder) | {"iterations": 2, "train": {"dtype": "float32"}, "launch": {"micro_batch_size": 16}}
    told |= {"reward": {"judge": {"max_reasoning": 100}}}
    return SelfRewarding.model_validate(told | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> SelfRewarding:
    folder = tmp_path_factory.mktemp("self-rewarding")
    shown = [{"question": f"Say {n}.", "answer": f"{n}"} for n in range(40)]
    data = {"demonstrations": write(folder / "shown.jsonl", shown), "ranked": write(folder / "pairs.jsonl", rows(40))}
    config = make(folder, sft_train={"batch_size": 16}, limit_ranked=30, judge_limits={"length": 1}, **data)
    with prepared(cache):
        check(loop, config, OnDrift.REFUSE)
        run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    return config


def test_each_iterations_own_policy_judges(finished: SelfRewarding) -> None:
    for number, before in ((1, "sft/train"), (2, "iter-1/train")):
        told = json.loads((finished.directory / f"iter-{number}/score/judge-program.json").read_text())
        assert told["policy"] == str(finished.directory / before / "policy") and told["judge"]["opinions"] == 3
        scored = json.loads((finished.directory / f"iter-{number}/score/manifest.json").read_text())
        drawn = json.loads((finished.directory / f"iter-{number}/generate/manifest.json").read_text())
        assert scored["inputs"]["judge"] == drawn["inputs"]["policy"]


def test_with_a_judge_that_knows_the_references_all_pairs_are_right_over_wrong(finished: SelfRewarding) -> None:
    references = {p.id: p.reference for p in read_rows(Problem, finished.directory / "problems/train.parquet")}
    for number in (1, 2):
        folder = finished.directory / f"iter-{number}"
        pairs = [pair for name in ("pairs", "held_out") for pair in read_rows(Pair, folder / f"pair/{name}.parquet")]
        for pair in pairs:
            assert pair.chosen.endswith(f" {references[pair.problem_id]}") and pair.rejected.endswith(" -1")
        right: dict[str, set[bool]] = {}
        for sample in read_rows(Sample, folder / "generate/samples"):
            right.setdefault(sample.problem_id, set()).add(not sample.text.endswith(" -1"))
        assert {pair.problem_id for pair in pairs} == {name for name, both in right.items() if len(both) == 2}
        counts = json.loads((folder / "pair/selection.json").read_text())
        assert counts["tie"] == sum(len(both) == 1 for both in right.values())


def test_the_judge_is_measured_on_peoples_pairs(finished: SelfRewarding) -> None:
    for number in range(3):
        told = json.loads((finished.directory / f"iter-{number}/judge/validation/measures.json").read_text())
        found = told["judge_agreement"]
        assert found["rows"] == 30 and found["value"]["value"] == 0.9
        assert found["details"][ENTROPY] == pytest.approx(1.0) and found["details"][WITH_ITSELF] == 1.0
        assert list(found["against"]) == (["base"] if number else [])
    report = (finished.directory / "report.html").read_text()
    assert "agreement with people" in report and "Self-Rewarding raised test accuracy" in report


def test_a_verifier_orders_the_pairs_too_and_the_margin_on_others_is_measured(finished: SelfRewarding) -> None:
    for number in (1, 2):
        folder = finished.directory / f"iter-{number}"
        (right,) = json.loads((folder / "verify/validation/measures.json").read_text()).values()
        assert right["value"]["value"] == 1.0 and right["rows"] == len(
            list(read_rows(Pair, folder / "pair/pairs.parquet"))
        )
        own = json.loads((folder / "likelihood/validation/measures.json").read_text())
        assert own["own_pair_margin"]["rows"] == own["own_pair_accuracy"]["rows"] > 0
    report = (finished.directory / "report.html").read_text()
    for words in (
        "the verifier orders the pairs that it learned as they were judged in 100.0",
        "more than it did before by",
    ):
        assert words in report


def test_another_start_has_nothing_to_do_and_a_pair_is_traced(
    finished: SelfRewarding, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {planned.status for planned in plan_loop(loop, finished, OnDrift.REFUSE).plan} == {Status.REUSE}
    where = [finished.run, "--runs-dir", str(finished.runs_dir)]
    assert history.trace(where) == 0
    assert "iter-1/pair/pairs.parquet" in (shown := capsys.readouterr().out)
    assert "ranked.parquet" not in shown
    pair = next(read_rows(Pair, finished.directory / "iter-2/pair/pairs.parquet"))
    assert history.trace([where[0], f"iter-2/{pair.problem_id}/{pair.index}", *where[1:]]) == 0
    told = capsys.readouterr().out
    assert told.count("sample      ") == told.count("score       ") == 2 and told.count("opinion     ") == 6
    assert told.count('| {"reasoning": "as the reference", "score": 5}') == 3 and "| the reference: 5" not in told
    assert "judge       iter-1/train/policy, digest " in told and "trained on in iter-2/train" in told
    assert "the rejected answer above" in told and "from arithmetic, split train" in told and "DIFFERS" not in told


def test_of_the_judgments_of_peoples_pairs_those_that_agree_are_learned_with_the_demonstrations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = rows(40)
    data = {
        "demonstrations": write(tmp_path / "shown.jsonl", [{"question": "Say 1.", "answer": "1"}]),
        "eft": write(tmp_path / "eft.jsonl", people),
        "ranked": write(tmp_path / "ranked.jsonl", people[:10]),
    }
    config = make(tmp_path, iterations=1, judge_limits={"length": 1}, **data)
    run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    counts = json.loads((config.directory / "sft/examples/selection.json").read_text())
    learned = list(read_rows(Example, config.directory / "sft/examples/examples.parquet"))
    prompts = {
        pair.messages[-1]["content"] for pair in read_rows(Pair, config.directory / "ranked/pairs/ranked.parquet")
    }
    judged = list(read_rows(Pair, config.directory / "eft/pairs/ranked.parquet"))
    assert len(judged) == 30 and prompts.isdisjoint(pair.messages[-1]["content"] for pair in judged)
    assert counts == {"samples": 181, "kept": 55, "people disagree": 18, "duplicate": 108}
    program = json.loads((config.directory / "iter-1/score/judge-program.json").read_text())
    assert program["policy"] == str(config.directory / "sft/train/policy")
    where = [config.run, "--runs-dir", str(config.runs_dir)]
    assert history.trace([where[0], f"sft/{learned[0].problem_id}/{learned[0].index}", *where[1:]]) == 0
    assert "written by baseline/train/policy" in (told := capsys.readouterr().out) and "DIFFERS" not in told


def test_new_prompts_are_made_up_by_the_policy_of_the_moment_and_repeat_nothing(tmp_path: Path) -> None:
    config = make(tmp_path, new_prompts={"count": 300, "keywords": ["kitten"]})
    check(loop, config, OnDrift.REFUSE)
    run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    given = {p.id for p in read_rows(Problem, config.directory / "problems/train.parquet")}
    before: set[str] = set()
    for number, policy in ((1, "base"), (2, "iter-1/train")):
        folder = config.directory / f"iter-{number}/prompts"
        made = list(read_rows(Problem, folder / "problems.parquet"))
        counts = json.loads((folder / "selection.json").read_text())
        assert counts["samples"] == 300 == sum(counts.values()) - 300 and counts["kept"] == len(made) > 200
        assert counts["refusal"] > 0 and counts["near_duplicate"] > 0
        ids = {p.id for p in made}
        assert len(ids) == len(made) and ids.isdisjoint(given) and ids.isdisjoint(before)
        before |= ids
        replies = list(read_rows(MadeUp, folder / "replies"))
        own = [sum(name.startswith("#") for name in reply.examples) for reply in replies]
        assert {len(reply.examples) for reply in replies} == {8} and own == [0] * 256 + [2] * 44
        told = json.loads((folder / "program.json").read_text())
        assert told["policy"] == str(config.directory / policy / "policy")
        assert {p.source for p in made} == {f"made up by the policy@{folder_digest(Path(told['policy']))[:12]}"}
        answered = {
            sample.problem_id for sample in read_rows(Sample, config.directory / f"iter-{number}/generate/samples")
        }
        assert answered == ids


def test_made_up_prompts_need_a_reward_without_references(tmp_path: Path) -> None:
    config = make(tmp_path, new_prompts={}, reward={"name": "final_answer"})
    with pytest.raises(RewardError, match="final_answer needs references, which made-up prompts do not have"):
        check(loop, config, OnDrift.REFUSE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"reward": {"judge": {"endpoint": "http://localhost:1/v1"}}}, "reward.judge.model is not set"),
        ({"reward": {"judge": {"model_revision": "main"}}}, "reward.judge.model is not set"),
        ({"new_prompts": {}, "few_shot": "shots.jsonl"}, "few_shot puts turns before each"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(tmp_path, **changes)


def test_a_judgment_that_has_no_room_is_refused_before_anything_begins(tmp_path: Path) -> None:
    config = make(tmp_path, reward={})
    with pytest.raises(
        AskedModelError, match=r"A reply may take 2,464 tokens, .* context of 1,024.*Lower reward\.judge"
    ):
        check(loop, config, OnDrift.REFUSE)


def test_prompts_of_the_measured_pairs_are_not_learned_in_the_loop_either(tmp_path: Path) -> None:
    prompt = next(p.messages[0]["content"] for p in embedded_problems(0) if p.split == "train")
    ranked = [{"prompt": prompt, "chosen": f"{n} b c", "rejected": f"{n}"} for n in range(12)]
    config = make(tmp_path, iterations=1, judge_limits={"length": 1}, ranked=write(tmp_path / "ranked.jsonl", ranked))
    run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    assert len(list(read_rows(Problem, config.directory / "ranked/pairs/prompts.parquet"))) == 1
    counts = json.loads((config.directory / "iter-1/pair/selection.json").read_text())
    assert counts["on whose prompt the judge is measured"] == 1
    assert counts["samples"] == 100 == sum(counts.values()) - 100


def test_evaluation_data_are_the_training_rows_of_a_data_set(tmp_path: Path) -> None:
    (folder := tmp_path / "people").mkdir()
    for name, some in (("train", rows(40)[:20]), ("test", rows(40)[20:])):
        write(folder / f"{name}.jsonl", some)
    config = make(tmp_path, iterations=1, judge_limits={"length": 1}, eft=folder, ranked=folder)
    run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    for place, first in (("eft", 0), ("ranked", 20)):
        read = list(read_rows(Pair, config.directory / place / "pairs/ranked.parquet"))
        assert [pair.messages[0]["content"] for pair in read] == [row["prompt"] for row in rows(40)[first : first + 20]]


@pytest.mark.parametrize("name", ["eft", "ranked"])
def test_pairs_for_a_policy_that_does_not_judge_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} .* but another one judges here"):
        make(tmp_path, reward={"name": "final_answer"}, **{name: tmp_path / "pairs.jsonl"})


def test_a_judge_that_always_says_five_ends_it_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_SCORE", "5")
    config = make(tmp_path)
    with pytest.raises(NothingKeptError, match=r"The judge always gives the same score\.") as refused:
        run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    assert "(100 tie)" in str(refused.value) and not (config.directory / "iter-1/train").exists()
    pairs = write(tmp_path / "pairs.jsonl", rows(20))
    summary = run_loop("Self-Rewarding", loop, make(tmp_path, run="measured", ranked=pairs), OnDrift.REFUSE)
    assert "the entropy of its scores is 0.00 bits, less than judge_limits.entropy 0.3" in summary["stop_reason"]
    assert summary["best_iteration"] == 0 and not (tmp_path / "runs/measured/iter-1").exists()


def test_another_size_of_shards_after_a_failure_judges_each_pair_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"ranked": write(tmp_path / "pairs.jsonl", rows(20)), "iterations": 1, "judge_limits": {"length": 1}}
    with monkeypatch.context() as failing:
        failing.setenv("STUB_FAILS", "1")
        with pytest.raises(ChildError):
            run_loop("Self-Rewarding", loop, make(tmp_path, engine={"shard_size": 12}, **told), OnDrift.REFUSE)
    config = make(tmp_path, **told)
    run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    found = json.loads((config.directory / "iter-0/judge/validation/measures.json").read_text())
    assert found["judge_agreement"]["rows"] == 20


def test_a_judge_that_goes_by_length_ends_it(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.jsonl", rows(20))
    config = make(tmp_path, ranked=pairs, judge_limits={"length": 0.5})
    summary = run_loop("Self-Rewarding", loop, config, OnDrift.REFUSE)
    assert "the judge goes by length: its scores correlate with it by 1.00" in summary["stop_reason"]


@pytest.mark.parametrize(("name", "row"), [("ranked", {"question": "a", "answer": "b"}), ("demonstrations", {"q": 1})])
def test_data_that_cannot_be_used_are_refused_before_anything_begins(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    config = make(tmp_path, **{name: write(tmp_path / "data.jsonl", [row])})
    with pytest.raises(DataFileError):
        check(loop, config, OnDrift.REFUSE)
    assert not config.directory.exists()
