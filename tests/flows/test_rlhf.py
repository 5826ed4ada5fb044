"""RLHF on stub programs: a reward model is learned from pairs or given, and the policy learns from it."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data.prepare.sources import DataFileError
from data.rewards import RewardError
from data.rows import Example
from data.storage import read_rows
from flows.commands import history
from flows.rlhf import RLHF, loop
from tasks.datasets.prompt_length import policy_tokenizer
from tasks.history.checkpoint import find_checkpoint
from tasks.history.runs import open_history
from tasks.loop.loop import run_loop
from tasks.loop.measuring import MeasureError
from tasks.loop.preflight import check, plan_loop
from tasks.policies.adapter import AdapterError
from tasks.publishing.results import inputs_read, rows_used
from tasks.stage.contract import OnDrift, Status
from tests.flows.conftest import make_history, prepared, small, write_reward_model
from tests.flows.test_reward_model import rows
from tests.flows.test_sft_dpo import write

pytestmark = pytest.mark.usefixtures("stubs")

OVEROPTIMIZED = {"rule": "overoptimized"}
TRAIN = {"steps": 5, "problems": 16, "batch_size": 16, "dtype": "float32"}


def make(folder: Path, **changes: Any) -> RLHF:
    make_history(folder / "runs")
    told = small(folder) | {"iterations": 2, "train": TRAIN, "launch": {"micro_batch_size": 16}}
    told |= {"generate": {"max_tokens": 48}, "reward_train": {"batch_size": 16}}
    return RLHF.model_validate(told | changes)


def reward_model(folder: Path) -> Path:
    """One that reads what the policy writes."""
    model = write_reward_model(folder / "model")
    policy_tokenizer(make(folder)).tokenizer.save_pretrained(model)
    return model


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RLHF:
    folder = tmp_path_factory.mktemp("rlhf")
    config = make(folder, pairs=write(folder / "pairs.jsonl", rows(200)))
    with prepared(cache):
        check(loop, config, OnDrift.REFUSE)
        run_loop("RLHF", loop, config, OnDrift.REFUSE)
    return config


def test_the_reward_model_of_the_run_scores_and_begins_the_values(finished: RLHF) -> None:
    made = str(finished.directory / "reward/train/policy")
    for number in (1, 2):
        told = json.loads((finished.directory / f"iter-{number}/train/program.json").read_text())
        assert told["judged_by"]["models"]["reward-model"]["model"].endswith("reward/train/policy")
        assert told["value"] == made and told["sampling"]["samples"] == 1 and "kl_target" in told["train"]
    manifest = json.loads((finished.directory / "iter-1/train/manifest.json").read_text())
    digest = json.loads((finished.directory / "reward/measure/manifest.json").read_text())["inputs"]["model"]
    assert manifest["inputs"]["reward-model"] == digest


def test_gold_and_not_what_is_optimized_measures_the_policy(finished: RLHF) -> None:
    best = json.loads((finished.directory / "best/best.json").read_text())
    assert best["iteration"] == 2
    assert "RLHF raised test accuracy" in (finished.directory / "report.html").read_text()
    plan = plan_loop(loop, finished, OnDrift.REFUSE)
    assert {planned.status for planned in plan.plan} == {Status.REUSE}


def test_what_is_optimized_is_measured_on_the_same_answers(finished: RLHF) -> None:
    folders = [finished.directory / f"iter-{number}/proxy/validation" for number in range(3)]
    found = [json.loads((folder / "measures.json").read_text())["proxy"] for folder in folders]
    assert [one["rows"] for one in found] == [100] * 3
    assert [one["details"]["kl"] for one in found] == [0, pytest.approx(0.03), pytest.approx(0.03)]
    assert [list(one["against"]) for one in found] == [[], ["base"], ["base"]]
    best = json.loads((folders[0] / "best_of.json").read_text())
    assert [one["n"] for one in best] == [1, 2, 4] and not (folders[1] / "best_of.json").exists()
    assert best[0]["proxy"] == pytest.approx(found[0]["value"]["value"])
    told = (finished.directory / "report.html").read_text()
    assert "the policy cheats its reward" in told and "the reward that it optimized, on validation," in told


def test_it_stops_once_gold_falls_while_what_is_optimized_rises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_SKILLS", "[0.9, 0.5, 0.1]")
    monkeypatch.setenv("STUB_CHEATED", "1")
    model = reward_model(tmp_path)
    how = {"stop": OVEROPTIMIZED, "iterations": 3}
    config = make(tmp_path, reward={"name": "reward-model", "model": {"path": str(model)}}, **how)
    summary = run_loop("RLHF", loop, config, OnDrift.REFUSE)
    assert "the reward that is optimized still rose in iteration 2, by 0." in summary["stop_reason"]
    assert "since iteration 1, but sampled pass@1 fell by" in summary["stop_reason"]
    assert summary["best_iteration"] == 1 and not (config.directory / "iter-3").exists()


def test_that_rule_needs_a_measure_that_a_verifier_takes(tmp_path: Path) -> None:
    model = reward_model(tmp_path)
    how = {"stop": OVEROPTIMIZED, "measure": "last"}
    config = make(tmp_path, reward={"name": "reward-model", "model": {"path": str(model)}}, **how)
    with pytest.raises(MeasureError, match="chooses by another measure"):
        run_loop("RLHF", loop, config, OnDrift.REFUSE)


def test_an_answer_is_traced_to_the_policy_that_drew_it(finished: RLHF, capsys: pytest.CaptureFixture[str]) -> None:
    assert history.trace([finished.run, "--runs-dir", str(finished.runs_dir)]) == 0
    said = capsys.readouterr().out
    assert "iter-1/train/rollouts, 10 rows" in said and "reward/pairs/pairs.parquet" in said


def test_a_reward_model_that_is_there_is_used(tmp_path: Path) -> None:
    model = reward_model(tmp_path)
    config = make(tmp_path, iterations=1, reward={"name": "reward-model", "model": {"path": str(model)}})
    run_loop("RLHF", loop, config, OnDrift.REFUSE)
    told = json.loads((config.directory / "iter-1/train/program.json").read_text())
    assert told["value"] == str(model) and not (config.directory / "reward").exists()


def test_values_do_not_begin_with_a_model_of_other_tokens(tmp_path: Path) -> None:
    model = write_reward_model(tmp_path / "model")
    reward = {"name": "reward-model", "model": {"path": str(model)}}
    with pytest.raises(RewardError, match=r"another vocabulary than the policy, in \d+ tokens such as '"):
        check(loop, make(tmp_path, reward=reward), OnDrift.REFUSE)
    config = make(tmp_path, reward=reward, train=TRAIN | {"value_from": "policy"}, iterations=1)
    run_loop("RLHF", loop, config, OnDrift.REFUSE)  # it scores by text


def test_one_that_prefers_nothing_is_refused_unless_forced(tmp_path: Path) -> None:
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows(200)]
    even = [turned[n] if n % 2 else row for n, row in enumerate(rows(200))]
    config = make(tmp_path, iterations=1, pairs=write(tmp_path / "pairs.jsonl", even))
    with pytest.raises(RewardError, match=r"perhaps no more often than by chance.*forced: true"):
        run_loop("RLHF", loop, config, OnDrift.REFUSE)
    assert not (config.directory / "iter-1").exists()
    run_loop("RLHF", loop, config.model_copy(update={"forced": True}), OnDrift.REFUSE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pairs": "p.jsonl", "reward": {"name": "reward-model", "model": {"path": "m"}}}, "Give either pairs"),
        ({"reward": {"name": "final_answer"}}, "none is a reward model. Add reward-model to reward.parts"),
        ({"pairs": "p.jsonl", "train": TRAIN | {"problems": 24}}, "24 × 1 = 24 answers, which is not a multiple"),
        ({"pairs": "p.jsonl", "reward_train": {"batch_size": 24}}, "reward_train.batch_size 24"),
        ({"pairs": "p.jsonl", "generate": {"top_p": 0.9}}, "greater than or equal to 1"),
        (
            {"reward": {"name": "final_answer"}, "train": TRAIN | {"value_from": "policy"}, "stop": OVEROPTIMIZED},
            "but this run has only one",
        ),
        ({"train": TRAIN | {"kl_target": 6.0, "kl": 0}}, "a weight of 0 stays 0"),
        ({"train": TRAIN | {"kl_target": 6.0, "kl_horizon": 3}}, "kl_horizon 3 is too short"),
        ({"mix": "texts.jsonl"}, "mix is set, but its weight, train.ptx, is 0"),
        ({"train": TRAIN | {"ptx": 1.0}}, "there is nothing to mix in"),
        (
            {"train": TRAIN | {"ptx": 1.0}, "mix": "t.jsonl", "generate": {"temperature": 0.7}},
            "train.ptx needs generate.temperature 1",
        ),
        ({"demonstrations": "d.jsonl", "sft_train": {"batch_size": 24}}, "sft_train.batch_size 24"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make(tmp_path, **changes)


def test_without_a_reward_model_or_pairs_it_is_refused_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="Give either pairs to learn a reward model from"):
        run_loop("RLHF", loop, make(tmp_path), OnDrift.REFUSE)
    assert not (tmp_path / "runs/stub").exists()


def test_the_policy_learns_demonstrations_first_and_keeps_them_up(tmp_path: Path) -> None:
    shown = [{"question": f"Say {n}.", "answer": f"{n}"} for n in range(40)]
    shown.append({"question": "Say it.", "answer": "word " * 300})  # beyond a packed row
    told: dict[str, Any] = {"reward": {"name": "final_answer"}, "iterations": 1, "system": "Be brief."}
    told |= {"train": TRAIN | {"value_from": "policy", "ptx": 1.0}, "sft_train": {"batch_size": 16, "pack_to": 128}}
    config = make(tmp_path, demonstrations=write(tmp_path / "shown.jsonl", shown), **told)
    run_loop("RLHF", loop, config, OnDrift.REFUSE)
    learned = json.loads((config.directory / "sft/train/manifest.json").read_text())
    assert learned["rows_in"] == 40
    program = json.loads((config.directory / "iter-1/train/program.json").read_text())
    start = str(config.directory / "sft/train/policy")
    assert (program["policy"], program["reference"], program["value"]) == (start, start, start)
    assert program["mix"] == str(config.directory / "mix/examples/examples.parquet")
    rows = list(read_rows(Example, Path(program["mix"])))
    assert len(rows) == 40 and all(row.messages[0]["content"] == "Be brief." for row in rows)
    plan = plan_loop(loop, config, OnDrift.REFUSE)
    assert {planned.status for planned in plan.plan} == {Status.REUSE}
    history = open_history(config.runs_dir, config.run)
    assert {"sft/train", "mix/examples"} <= history.stages.keys()
    used = {row["file"].partition("/")[2]: row["rows"] for row in rows_used(history, 1)}
    assert used["examples/examples.parquet"] == "40"  # the same rows are learned and mixed in
    named = {row["input"]: row["name"] for row in inputs_read(history)}
    assert named["demonstrations"].endswith("shown.jsonl") and "pairs" not in named
    assert find_checkpoint(config.runs_dir, "stub/sft").about.startswith("the base after SFT, of the run stub")


def test_texts_are_mixed_in_as_rows_of_a_runs_length(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    write(texts / "train.jsonl", [{"text": "to be or not to be " * 40}, {"text": "?"}])
    write(texts / "test.jsonl", [{"text": "that is the question " * 9}])  # is not learned
    told = {"reward": {"name": "final_answer"}, "train": TRAIN | {"value_from": "policy", "ptx": 1.0}}
    config = make(tmp_path, mix=texts, iterations=1, **told)
    run_loop("RLHF", loop, config, OnDrift.REFUSE)
    found = list(read_rows(Example, config.directory / "mix/examples/examples.parquet"))
    assert {len(row.token_ids or []) for row in found[:-1]} == {96} and all(row.messages == [] for row in found)
    assert len({row.problem_id for row in found}) == 1
    assert json.loads((config.directory / "mix/examples/selection.json").read_text())["a single token"] == 1


def test_the_adapter_of_each_training_is_checked_before_anything_begins(tmp_path: Path) -> None:
    shown = write(tmp_path / "shown.jsonl", [{"question": f"Say {n}.", "answer": f"{n}"} for n in range(40)])
    told = {"reward": {"name": "final_answer"}, "train": TRAIN | {"value_from": "policy"}}
    sft_train = {"batch_size": 16, "adapter": {"targets": ["nowhere"]}}
    with pytest.raises(AdapterError, match="nowhere"):
        check(loop, make(tmp_path, demonstrations=shown, sft_train=sft_train, **told), OnDrift.REFUSE)


@pytest.mark.parametrize(
    ("name", "row", "says"),
    [
        ("demonstrations", {"text": "Once."}, "texts without prompts|It can serve as"),
        ("demonstrations", {"question": "Why?"}, "It can serve as prompts, not as demonstrations"),
        ("mix", {"question": "Why?"}, "It can serve as prompts, not as demonstrations"),
        ("demonstrations", None, "is empty|no rows"),
    ],
)
def test_data_that_cannot_be_learned_are_refused_before_anything_begins(
    tmp_path: Path, name: str, row: dict[str, str] | None, says: str
) -> None:
    file = write(tmp_path / "data.jsonl", [row] * 3 if row else [])
    train = TRAIN | {"value_from": "policy"} | ({"ptx": 1.0} if name == "mix" else {})
    config = make(tmp_path, reward={"name": "final_answer"}, train=train, **{name: file})
    with pytest.raises(DataFileError, match=says):
        check(loop, config, OnDrift.REFUSE)
    assert not config.directory.exists()


def test_pairs_of_one_prompt_leave_nothing_to_measure_on(tmp_path: Path) -> None:
    same = [row | {"prompt": "Item?"} for row in rows(40)]
    for number, row in enumerate(same):
        row["chosen"] += f" {number}"
    config = make(tmp_path, pairs=write(tmp_path / "pairs.jsonl", same))
    with pytest.raises(DataFileError, match="0 are held out, by the hash of their prompts, and 40 are left"):
        check(loop, config, OnDrift.REFUSE)


def test_a_verifier_alone_can_be_optimized_with_values_from_the_policy(tmp_path: Path) -> None:
    config = make(tmp_path, reward={"name": "final_answer"}, train=TRAIN | {"value_from": "policy"}, iterations=1)
    run_loop("RLHF", loop, config, OnDrift.REFUSE)
    told = json.loads((config.directory / "iter-1/train/program.json").read_text())
    assert told["value"].endswith("base/policy") and told["judged_by"]["models"] == {}
