"""A run of which no answer can be verified: its report, tables, history, and what looks back on it."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from data.files import write_json
from data.rows import MeasuredRow, Pair
from data.storage import write_rows
from flows.commands.cli import main
from flows.commands.console import show_summary
from flows.dpo import DPO
from tasks.loop.loop import run_loop
from tasks.policies.base import base_policy
from tasks.policies.best import publish_best
from tasks.rollouts.measured import load_measured, write_measured
from tasks.stage.contract import Artifact, OnDrift, Outcome, Stage, load_finished, run_stage
from tasks.stage.iteration import Iteration
from tasks.stage.run import SUMMARY, Result, Run
from tasks.tracking.recorder import Ending, answers_shown, iteration_rows, record_end, record_iteration
from tests.flows.conftest import make_history, prepared, small
from tests.flows.test_history import compared, evaluation, listed, made_run, publish, refused, rows

Text = pytest.CaptureFixture[str]
Found = Mapping[str, Sequence[float]]
BASE: Found = {"loss": [2.0] * 40}
TRAINED: Found = {"loss": [1.5, 1.7] * 20, "pair_accuracy": [1.0] * 30 + [0.0] * 10}
DETAILS = {"pair_accuracy": {"rewards/margins": 0.25}}
JOURNAL = '{"step": 10, "loss": 0.6, "rewards/margins": 0.25}\n{"step": 10, "held_out/loss": 0.66}\n'


def measure(run: Run, name: str, set_name: str, found: Found, before: Result | None = None) -> Result:
    """A stage that measures these values of rows."""

    def work(attempt: Path) -> Outcome:
        values = {key: [MeasuredRow(f"p{n}", 0, v) for n, v in enumerate(told)] for key, told in found.items()}
        against = {"base": load_measured([before])} if before else {}
        write_measured(attempt / set_name, values, 0, against, DETAILS)
        return Outcome()

    return run.execute(Stage(name, 1, {"found": {key: list(told) for key, told in found.items()}}, {}), work)


def loop(run: Run, config: Any) -> dict[str, Any]:
    """What DPO does, without models: a base, pairs, one trained policy, and measures of both."""
    base, prompt = base_policy(run, config), [{"role": "user", "content": "a"}]

    def pair(attempt: Path) -> Outcome:
        row = Pair("ab" * 8, 0, prompt, "b", "c", None, None, "mine.jsonl", "mine.jsonl")
        write_rows(Pair, attempt / "pairs.parquet", [row])
        return Outcome()

    def train(attempt: Path) -> Outcome:
        shutil.copytree(base.path / "policy", attempt / "policy")
        (attempt / "policy" / "trained").touch()
        (attempt / "metrics.jsonl").write_text(JOURNAL)
        return Outcome()

    before = measure(run, "iter-0/likelihood", "validation", BASE)
    iterations = [Iteration(0, base, {"likelihood": before})]
    record_iteration(run, iterations, "pair_accuracy")
    made = run.execute(Stage("iter-1/pairs", 1, {}, {}), pair)
    policy = run.execute(Stage("iter-1/train", 1, {}, {}), train)
    after = measure(run, "iter-1/likelihood", "validation", TRAINED, before)
    iterations.append(Iteration(1, policy, {"pairs": made, "train": policy, "likelihood": after}))
    record_iteration(run, iterations, "pair_accuracy")
    assert answers_shown(run, iterations[-1]) == []
    publish_best(run, policy.artifact("policy"), 1)
    final = (
        {"likelihood": measure(run, "final/base-likelihood", "test", BASE)},
        {"likelihood": measure(run, "final/best-likelihood", "test", TRAINED)},
    )
    run.decided_by = "pair_accuracy"
    ending = Ending(1, "it has one iteration", final, "test-set", lambda: None)
    summary = record_end(run, config, None, iterations, ending)
    if summary:
        write_json(run.directory / SUMMARY, summary)
    return summary


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A runs folder with two such runs. Only to be read."""
    folder = tmp_path_factory.mktemp("home")
    make_history(folder / "runs")
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(f'{{"prompt": "a{n}", "chosen": "b", "rejected": "c"}}\n' for n in range(60)))
    with prepared(cache), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.tracking.recorder.gates_decided", lambda *_, **__: 2)
        for name in ("one", "two"):
            config = DPO.model_validate(small(folder) | {"run": name, "pairs": pairs})
            run_loop("DPO", loop, config, OnDrift.REFUSE)
            told = json.loads((config.directory / "config.json").read_text())
            (config.directory / "config.json").write_text(json.dumps(told | {"decided_by": "pair_accuracy"}))
    return folder / "runs"


def test_the_report_begins_with_what_decided_and_has_no_empty_sections(home):
    page = (home / "one" / "report.html").read_text().replace("\u00a0", " ")
    first = re.findall(r"<h1>(.*?)</h1>", page)[0]
    assert first.startswith("DPO: on test pairs the policy prefers the chosen answer in 75.0 % of n = 40 pairs, 95 %")
    assert "DPO lowered the test loss per token of gold answers from 2.000 to 1.600 nats: −0.400" in page
    assert "has decided on the champion 2 times before" in page
    assert "rewards/margins" in page and "optimizer step" in page and "mine.jsonl: 1" in page
    for words in ("pass@1", "Side by side", "Answers on validation", "Gained, lost"):
        assert words not in page


def test_the_summary_is_printed_with_every_measure(home, capsys):
    show_summary(home / "one")
    out = capsys.readouterr().out
    assert out.startswith("DPO: on test pairs the policy prefers")
    table = rows(out)
    base, trained = (row for row in table if row[0] in ("0", "1"))
    assert base[2:4] == ["", "2.000 [2.000, 2.000]"] and trained[2].startswith("75.0% [")
    held_out = {row[1]: row for row in table if row[0] == "test"}
    assert held_out["loss per token"][3] == "2.000 [2.000, 2.000]" and held_out["loss per token"][6] == "yes"
    assert held_out["pair accuracy"][5:] == ["", "yes"]


def test_the_history_has_measures_differences_details_and_the_curve_of_training(home):
    ids = json.loads((home / "one" / "mlflow.json").read_text())
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    numbers = client.get_run(ids["iteration-1"]).data.metrics
    assert numbers["validation/loss"] == pytest.approx(1.6)
    assert numbers["validation/loss_low"] < 1.6 < numbers["validation/loss_high"]
    assert numbers["validation/loss_gain_over_base"] == pytest.approx(-0.4)
    assert numbers["validation/pair_accuracy"] == 0.75
    assert numbers["validation/pair_accuracy/rewards/margins"] == 0.25
    assert numbers["train/loss"] == 0.6 and numbers["held_out/loss"] == 0.66
    final = client.get_run(ids["parent"]).data.metrics
    assert final["final/test/loss_gain_over_base"] == pytest.approx(-0.4)


def test_runs_lists_it_by_what_decided_and_knows_what_is_next(home, tmp_path, capsys):
    found = listed(home, capsys)
    assert found["one"][:3] == ["DPO", "finished", "1 of 1"]
    assert found["one"][3].startswith("1: pair accuracy 75.0% [")
    copy = Path(shutil.copytree(home / "one", tmp_path / "runs" / "one"))
    (copy / "summary.json").unlink()
    shutil.rmtree(copy / "final" / "best-likelihood")
    assert listed(copy.parent, capsys)["one"][1] == "unfinished: final/best-likelihood is next"
    told = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(told | {"decided_by": "loss"}))
    assert listed(copy.parent, capsys)["one"][3].startswith("1: loss per token 1.600 [")
    (copy / "config.json").write_text(json.dumps(told | {"decided_by": None}))
    assert listed(copy.parent, capsys)["one"][3] == ""
    assert listed(home, capsys)["two"][3] != ""


def test_a_pair_of_a_run_without_problems_is_followed_back(home, capsys):
    assert main(["trace", "one", "iter-1/ab/0", "--runs-dir", str(home)]) == 0
    out = capsys.readouterr().out
    assert "| c" in out and f"{'ab' * 8}, of the pairs" in out


def test_what_may_be_compared_across_runs_is_and_the_rest_is_refused(home, capsys):
    assert main(["compare", "one", "two", "--runs-dir", str(home)]) == 0
    out = capsys.readouterr().out
    assert "Test, best iteration of each: 1 | 1: further measures" in out
    table = {row[0]: row[1:] for row in rows(out)}
    loss = ["1.600 [1.570, 1.630]", "1.600 [1.570, 1.630]", "0.000 [0.000, 0.000]", "no", "40"]
    assert table["loss per token"] == loss == table["iteration 1: loss per token"]
    assert "Pair accuracy is not compared: each run measures it against its own base" in out
    assert not any("pair accuracy" in name for name in table)


def made(folder: Path, name: str, found: dict[str, list[MeasuredRow]], tokenizer: str = "t") -> None:
    """A run that measured these rows of one iteration's policy."""
    run = made_run(folder, name)
    publish(run, "base", {"policy/tokenizer.json": json.dumps({"model": tokenizer})})

    def work(attempt: Path) -> Outcome:
        write_measured(attempt / "validation", found, 0)
        return Outcome()

    run_stage(run, Stage("iter-1/likelihood", 1, {}, {}), work)


def losses(*values: float, start: int = 0, weight: float = 2.0) -> list[MeasuredRow]:
    return [MeasuredRow(f"p{start + n}", 0, value, weight) for n, value in enumerate(values)]


def test_losses_are_compared_row_by_row_per_token(tmp_path, capsys):
    made(tmp_path, "a", {"loss": losses(4.0, 6.0)})
    made(tmp_path, "b", {"loss": losses(2.0, 4.0)})
    (row,) = (row for row in rows(compared(tmp_path, capsys, "a", "b")) if row[0] == "iteration 1: loss per token")
    # Both rows have two tokens and lose two nats, so each resample differs by one nat per token.
    assert row[1][:5] == "2.500" and row[2][:5] == "1.500" and row[3:] == ["-1.000 [-1.000, -1.000]", "yes", "2"]


def test_other_rows_are_refused_and_common_ones_compared_if_asked(tmp_path, capsys):
    made(tmp_path, "a", {"loss": losses(4.0, 6.0)})
    made(tmp_path, "b", {"loss": losses(4.0, 8.0, start=1)})
    error = refused(tmp_path, capsys, "a", "b")
    assert "of the 2 and 2 gold answers of validation they share 1" in error and "--common" in error
    out = compared(tmp_path, capsys, "a", "b", "--common")
    assert "-1.000 [-1.000, -1.000]" in out and "2 rows in only one run left out" in out


@pytest.mark.parametrize(
    ("second", "tokenizer", "says"),
    [
        ({"loss": losses(1.0)}, "another", "the tokenizers of the two runs' policies differ"),
        ({"loss": losses(1.0, weight=3.0)}, "t", "render or truncate the same gold answers differently"),
        ({"loss": losses(1.0, start=7)}, "t", "Loss per token is not compared: of the 1 and 1 gold answers of"),
        (
            {"discriminator_accuracy": losses(1.0)},
            "t",
            "each run's opponent is its own policy of the previous iteration",
        ),
        ({"pair_accuracy": losses(1.0)}, "t", "each run measures it against its own base"),
        ({"win_rate": losses(1.0)}, "t", "no finished evaluation in common"),
    ],
)
def test_what_says_nothing_across_runs_is_refused_with_why(tmp_path, capsys, second, tokenizer, says):
    every = ("loss", "discriminator_accuracy", "pair_accuracy")
    made(tmp_path, "a", {name: losses(2.0) for name in every})
    made(tmp_path, "b", second, tokenizer)
    assert says in refused(tmp_path, capsys, "a", "b")


def test_sampled_accuracy_that_decides_is_compared_with_the_base(tmp_path):
    run = made_run(tmp_path, "a")
    evaluation(run, "iter-0/evaluate", "validation", [False] * 4, correct=[0, 0, 0, 0])
    evaluation(run, "iter-1/evaluate", "validation", [False] * 4, correct=[1, 1, 1, 1])
    found = [load_finished(run / f"iter-{number}" / "evaluate") for number in (0, 1)]
    assert all(found)
    for stage in found:  # as one that drew a single answer per problem tells it
        file = stage.path / "validation" / "metrics.json"
        told = json.loads(file.read_text())
        file.write_text(json.dumps(told | {"pass@k": {"1": told["pass@k"]["2"]}}))
    stages = [Result(stage.path, stage) for stage in found]
    iterations = [Iteration(number, stage, {"evaluate": stage}) for number, stage in enumerate(stages)]
    assert iteration_rows(iterations, "sampled_accuracy")[1]["against base"] == "50.0% [50.0%, 50.0%]"
    assert iteration_rows(iterations, "accuracy")[1]["against base"] == "0.0% [0.0%, 0.0%]"


def won(folder: Path, name: str, judge: str, against: str, answers: str | None) -> None:
    """A run whose policy won against some answers, in the eyes of a judge."""
    run = made_run(folder, name)
    config = {"judge": {"model": judge}, "against": [against]}
    inputs = {"ours_validation": publish_file(run, "ours", name)}
    if answers:
        inputs[f"{against}_validation"] = publish_file(run, "theirs", answers)

    def work(attempt: Path) -> Outcome:
        write_measured(attempt / "validation", {"win_rate": losses(1.0, 0.5, weight=1.0)}, 0)
        return Outcome()

    run_stage(run, Stage("iter-1/win_rate", 1, config, inputs), work)


def publish_file(run: Path, stage: str, text: str) -> Artifact:
    return Artifact(publish(run, stage, {"greedy": text}).path / "greedy", text)


@pytest.mark.parametrize(
    ("other", "apart"),
    [
        (("judge", "base", "answers"), None),
        (("another", "base", "answers"), "judge"),
        (("judge", "gold", None), "opponent"),
        (("judge", "base", "others"), "opponent's answers"),
    ],
)
def test_win_rates_by_another_judge_or_against_others_are_refused(tmp_path, capsys, other, apart):
    won(tmp_path, "a", "judge", "base", "answers")
    won(tmp_path, "b", *other)
    if apart is None:
        assert "iteration 1: win rate" in {row[0] for row in rows(compared(tmp_path, capsys, "a", "b"))}
    else:
        assert f"the two runs differ in the {apart}." in refused(tmp_path, capsys, "a", "b")
