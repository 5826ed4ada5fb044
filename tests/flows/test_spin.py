"""SPIN on stub programs: what each iteration starts from, trains on and is compared with."""

import json
from collections import Counter
from typing import Any

import pytest

from data.rows import Pair
from data.storage import read_rows
from flows.spin import Spin, loop
from tasks.datasets.select import NothingKeptError
from tasks.loop.loop import run_loop
from tasks.loop.measuring import MeasureError
from tasks.loop.preflight import plan_loop
from tasks.stage.contract import OnDrift, Status, load_finished
from tests.flows.conftest import make_spin
from tests.flows.test_rest_em import history

pytestmark = pytest.mark.usefixtures("stubs")


def run(config: Spin) -> dict[str, Any]:
    return run_loop("SPIN", loop, config, OnDrift.REFUSE)


def inputs(config: Spin, stage: str) -> dict[str, str]:
    return dict(json.loads((config.directory / stage / "manifest.json").read_text())["inputs"])


def digest(config: Spin, stage: str, artifact: str) -> str:
    finished = load_finished(config.directory / stage)
    assert finished is not None
    return str(finished.artifact(artifact).digest)


def test_the_opponent_is_the_last_policy_and_training_starts_from_it_with_it_as_reference(tmp_path):
    config = make_spin(tmp_path)
    summary = run(config)
    assert summary["best_iteration"] > 0
    for iteration, opponent in ((1, "base"), (2, "iter-1/train")):
        policy = digest(config, opponent, "policy")
        assert inputs(config, f"iter-{iteration}/generate")["policy"] == policy
        assert inputs(config, f"iter-{iteration}/reference")["policy"] == policy
        assert inputs(config, f"iter-{iteration}/train")["start"] == policy
    assert {p.status for p in plan_loop(loop, config, OnDrift.REFUSE).plan} == {Status.REUSE}


@pytest.mark.parametrize("mix", [True, False])
def test_the_pairs_of_the_iteration_before_are_mixed_in_and_measured_by_the_new_opponent(tmp_path, mix):
    config = make_spin(tmp_path, mix_previous=mix)
    run(config)
    trained = inputs(config, "iter-2/train")
    assert ("pairs_previous" in trained) == mix
    assert trained["pairs_current"] == digest(config, "iter-2/pair", "pairs.parquet")
    if mix:
        assert trained["pairs_previous"] == digest(config, "iter-1/pair", "pairs.parquet")
        assert trained["reference_previous"] == digest(config, "iter-2/reference", "previous.parquet")
    assert "pairs_previous" not in inputs(config, "iter-1/train")


def test_a_pair_can_be_followed_back_to_the_policy_that_wrote_its_rejected_side(tmp_path):
    config = make_spin(tmp_path, iterations=1)
    run(config)
    pairs = list(read_rows(Pair, config.directory / "iter-1" / "pair" / "pairs.parquet"))
    assert pairs and {pair.chosen_source for pair in pairs} == {"arithmetic"}
    assert {pair.rejected_source for pair in pairs} == {digest(config, "base", "policy")}


def test_each_iteration_has_its_own_settings(tmp_path):
    train = {"beta": [0.1, 5.0], "learning_rate": [1e-6, 1e-7], "epochs": 1}
    config = make_spin(tmp_path, train=train)
    run(config)
    for iteration in (1, 2):
        stage = config.directory / f"iter-{iteration}" / "train"
        told = json.loads((stage / "program.json").read_text())["train"]
        assert [told[name] for name in ("beta", "learning_rate", "epochs")] == [
            train["beta"][iteration - 1],
            train["learning_rate"][iteration - 1],
            1,
        ]


def test_the_history_has_the_gap_and_the_margin_of_a_run_of_any_name(tmp_path):
    config = make_spin(tmp_path, iterations=1, run="v1.5_b-2")
    run(config)
    client, runs = history(config)
    child = next(r for r in runs if r.data.tags.get("iteration") == "1")
    metrics = client.get_run(child.info.run_id).data.metrics
    assert metrics["likelihood/current/gap"] == pytest.approx(
        2 * metrics["likelihood/current/rejected_tokens"] - metrics["likelihood/current/chosen_tokens"]
    )
    assert metrics["selection/kept"] > 0
    assert (metrics["pairs/gold cut"], metrics["pairs/own truncated"]) == (0, 0)
    report = (config.directory / "report.html").read_text()
    assert "nats per pair" in report and "reward margin" in report


def test_when_all_own_answers_equal_the_gold_ones_nothing_is_trained(tmp_path, monkeypatch):
    import tasks.datasets.pairs

    def all_equal(problems, samples, render, max_tokens, counts):
        counts["samples"], counts["equal"] = 100, 100
        return iter(())

    monkeypatch.setattr(tasks.datasets.pairs, "pair_gold_over_own", all_equal)
    config = make_spin(tmp_path)
    with pytest.raises(NothingKeptError, match=r"100 equal.*lower --iterations by one"):
        run(config)
    assert not (config.directory / "iter-1" / "train").exists()
    assert not (config.directory / "best").exists()


def test_when_all_held_out_own_answers_equal_the_gold_ones_the_game_has_ended(tmp_path, monkeypatch):
    import tasks.datasets.pairs

    paired = tasks.datasets.pairs.pair_gold_over_own

    def equal_on_validation(problems, *rest):
        given = list(problems)
        return paired(given, *rest) if given[0].split == "train" else iter(())

    monkeypatch.setattr(tasks.datasets.pairs, "pair_gold_over_own", equal_on_validation)
    summary = run(make_spin(tmp_path, stop={"rule": "discriminator"}))
    assert summary["stop_reason"].startswith("no held-out answer of the opponent is left")
    assert summary["best_iteration"] == 1


def test_the_discriminator_rule_needs_held_out_gold_answers(tmp_path):
    prompts = [{"question_id": n, "category": "writing", "turns": [f"Write about {n}."]} for n in range(20)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    chats = [{"instruction": f"Say {n}.", "output": f"It is {n} words long, I think, or more."} for n in range(40)]
    (tmp_path / "chats.json").write_text(json.dumps(chats))
    held_out = dict.fromkeys(("validation", "test"), tmp_path / "prompts.jsonl")
    limits = {"limit_validation": None, "limit_test": None, "limit_transfer": None}
    told = {"demonstrations": tmp_path / "chats.json", "stop": {"rule": "discriminator"}, "verify": False}
    with pytest.raises(MeasureError, match="discriminator needs gold answers to held-out prompts"):
        plan_loop(loop, make_spin(tmp_path, **held_out, **limits, **told), OnDrift.REFUSE)


def test_demonstrations_of_three_formats_are_mixed_by_weight_and_counted_by_source(tmp_path):
    files = {
        "alpaca.json": json.dumps([{"instruction": f"Say {n}.", "output": f"#### {n}"} for n in range(100)]),
        "chats/rows.csv": "conversation,answer\n" + "".join(f"What is {n}?,#### {n}\n" for n in range(100)),
        "math/rows.csv": "problem,solution\n" + "".join(f"Find {n}.,$\\boxed{{{n}}}$\n" for n in range(100)),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    first, *others = (tmp_path / name for name in files)
    mixed = {"demonstrations": first, "mixture": {str(path): 0.25 for path in others}}
    columns = {"columns": {"prompt": "conversation"}}
    config = make_spin(tmp_path, iterations=1, limit_validation=None, limit_test=None, **mixed, **columns)
    run(config)
    pairs = list(read_rows(Pair, config.directory / "iter-1" / "pair" / "pairs.parquet"))
    counts = Counter(pair.chosen_source for pair in pairs)
    assert set(counts) == {"alpaca.json", *map(str, others)}, "two files of one name are told apart by their paths"
    assert counts[str(others[0])] == counts[str(others[1])] == counts["alpaca.json"] // 4
    _, runs = history(config)
    (parent,) = (r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    (child,) = (r for r in runs if r.data.tags.get("iteration") == "1")
    told = {name.removeprefix("source/"): n for name, n in child.data.metrics.items() if name.startswith("source/")}
    assert told == {source.replace("/", "_"): count for source, count in counts.items()}
    (train,) = (d.dataset for d in parent.inputs.dataset_inputs if d.dataset.name == "train")
    assert json.loads(train.profile) == {"rows": len(pairs), "sources": counts}


@pytest.mark.parametrize("rule", ["paper", "discriminator"])
def test_on_chat_nothing_decides_but_the_discriminator_may_end_the_game(tmp_path, rule):
    rows = [{"instruction": f"Say {n}.", "output": f"It is {n} words long."} for n in range(400)]
    (tmp_path / "chats.json").write_text(json.dumps(rows))
    limits = {"limit_validation": None, "limit_test": None, "limit_transfer": None, "stop": {"rule": rule}}
    config = make_spin(tmp_path, demonstrations=tmp_path / "chats.json", **limits)
    summary = run(config)
    assert not list(config.directory.glob("iter-*/evaluate")) and summary["measure"] is None
    latest = len(summary["iterations"]) - 1
    assert summary["best_iteration"] == latest
    found = json.loads((config.directory / f"iter-{latest}/likelihood/validation/measures.json").read_text())
    played = found["discriminator_accuracy"]
    assert {"rewards/margins", "length_ratio", "repeated", "ended"} <= played["details"].keys()
    assert set(found["loss"]["against"]) == {"base", "previous"} and "not compared" in summary["champion"]
    if rule == "paper":
        assert latest == 2  # which looks at a measure, and there is none
    else:
        over = played["value"]["low"] <= 0.5 <= played["value"]["high"]
        assert over == ("can no longer be distinguished from the opponent's" in summary["stop_reason"])
        assert over == (latest == 1)
