"""The stage that measures held-out rows without a verifier, on the stub program."""

import json
from pathlib import Path
from typing import Any

import pytest

import tasks.policies.reference
import tasks.rollouts.likelihood
from data.arithmetic import embedded_problems
from data.files import file_sha256
from data.likelihood import preference_metrics
from data.measures import DISCRIMINATOR, LOSS, PAIR_ACCURACY, Estimated, Measure
from data.rows import Pair, PairLikelihood, Problem
from data.storage import read_rows, write_rows
from models import tiny
from models.config import LaunchConfig, LikelihoodProgram, PreferenceConfig, SupervisedConfig
from tasks.policies.reference import PairsMeasured, load_likelihood, measure_reference
from tasks.policies.train import train, train_on_pairs
from tasks.rollouts.likelihood import HeldOutRows, measure_likelihood
from tasks.rollouts.measured import load_measured
from tasks.stage.contract import Artifact, DriftError
from tasks.stage.launch import Training
from tasks.stage.run import Result, Run

PROBLEMS = [p for p in embedded_problems(0) if p.split == "demonstration"][:30]
CONFIG = PreferenceConfig(beta=0.5, dtype="float32")
TRAINING = Training(CONFIG, LaunchConfig())


def policy(folder: Path, skill: float) -> Artifact:
    tiny.write_untrained(folder, ["a"])
    (folder / "skill.json").write_text(json.dumps({"skill": skill}))
    return Artifact(folder, f"skill {skill}")


def artifact(path: Path) -> Artifact:
    return Artifact(path, file_sha256(path), 30)


@pytest.fixture
def run(tmp_path: Path, stubs: None) -> Run:
    run = Run(tmp_path / "runs" / "run")
    run.directory.mkdir(parents=True)
    return run


@pytest.fixture
def gold(tmp_path: Path) -> Artifact:
    unanswered = Problem("f" * 16, PROBLEMS[0].messages, "1", None, "", "validation")
    write_rows(Problem, tmp_path / "gold.parquet", [*PROBLEMS, unanswered])
    return artifact(tmp_path / "gold.parquet")


@pytest.fixture
def pairs(tmp_path: Path) -> Artifact:
    rows = [Pair(p.id, 0, p.messages, p.response or "", "0", None, None, "gold", "own") for p in PROBLEMS]
    write_rows(Pair, tmp_path / "pairs.parquet", rows)
    return artifact(tmp_path / "pairs.parquet")


def measured_pairs(run: Run, base: Artifact, pairs: Artifact) -> dict[str, PairsMeasured]:
    return {
        "validation": measure_reference(run.place("iter-1"), base, {"validation": pairs}, TRAINING).measured(
            "validation"
        )
    }


def measure(
    run: Run,
    name: str,
    ours: Artifact,
    gold: Artifact,
    pairs: dict[str, PairsMeasured],
    against: dict[str, Result],
    pair_measure: Measure = PAIR_ACCURACY,
    sets: tuple[str, ...] = ("validation",),
) -> Result:
    rows = HeldOutRows(dict.fromkeys(sets, gold), pairs, pair_measure)
    return measure_likelihood(run.place(name), ours, rows, TRAINING, against)


def found(result: Result, measure: Measure) -> Estimated:
    estimate = load_measured([result]).get("validation", measure.name)
    assert estimate is not None
    return estimate


def test_gold_answers_and_pairs_are_measured_and_compared_with_the_base(run, tmp_path, gold, pairs):
    base, better = policy(tmp_path / "base", 0.2), policy(tmp_path / "better", 0.5)
    given = measured_pairs(run, base, pairs)
    first = measure(run, "base", base, gold, given, {})
    second = measure(run, "better", better, gold, given, {"base": first})

    loss = found(second, LOSS)
    assert loss.rows == 30 and loss.details["perplexity"] > 1
    assert loss.value.value < found(first, LOSS).value.value
    assert LOSS.clearly_better(loss.against["base"])

    before, after = found(first, PAIR_ACCURACY), found(second, PAIR_ACCURACY)
    assert (before.value.value, before.details["rewards/accuracies"]) == (0.5, 0.0)  # all ties
    assert after.value.value > 0.6 and after.against["base"].value == pytest.approx(after.value.value - 0.5)
    reference = {row.problem_id: row for row in read_rows(PairLikelihood, given["validation"].reference.path)}
    likelihoods = list(read_rows(PairLikelihood, second.path / "validation" / "pair_likelihoods.parquet"))
    ratios = [
        (r.chosen - reference[r.problem_id].chosen, r.rejected - reference[r.problem_id].rejected) for r in likelihoods
    ]
    assert after.details == pytest.approx(preference_metrics(ratios, 0.5, "logistic"))


def test_what_has_no_answer_or_does_not_fit_is_counted(run, tmp_path, gold, pairs, monkeypatch, caplog):
    """The program leaves out what is longer than the policy's context."""
    launched = tasks.rollouts.likelihood.launch_program

    def leaving_out(module: str, program: LikelihoodProgram, *rest: Any) -> Any:
        command = launched(module, program, *rest)
        for output in program.outputs:
            write_rows(PairLikelihood, output, list(read_rows(PairLikelihood, output))[2:])
        return command

    base = policy(tmp_path / "base", 0.2)
    for module in (tasks.rollouts.likelihood, tasks.policies.reference):
        monkeypatch.setattr(module, "launch_program", leaving_out)
    result = measure(run, "base", base, gold, measured_pairs(run, base, pairs), {})
    assert result.finished is not None
    manifest = result.finished.manifest
    assert (manifest.rows_in, manifest.rows_out, manifest.dropped) == (61, 58, {"no_answer": 1, "too_long": 2})
    assert found(result, PAIR_ACCURACY).rows == 28
    assert "2 of 60 rows left out: longer than the model's context of 1,024 tokens" in caplog.text
    assert "1 held-out row without a gold answer left out" in caplog.text


def test_discriminators_are_not_compared_with_each_other_as_their_pairs_differ(run, tmp_path, gold, pairs):
    base, better = policy(tmp_path / "base", 0.2), policy(tmp_path / "better", 0.5)
    given = measured_pairs(run, base, pairs)
    first = measure(run, "one", base, gold, given, {}, DISCRIMINATOR)
    second = measure(run, "two", better, gold, given, {"previous": first}, DISCRIMINATOR)
    assert found(second, DISCRIMINATOR).against == {}
    assert set(found(second, LOSS).against) == {"previous"}


def test_one_start_of_the_program_measures_all_sets_and_a_finished_stage_starts_none(
    run, tmp_path, gold, pairs, monkeypatch
):
    base = policy(tmp_path / "base", 0.2)
    given = measured_pairs(run, base, pairs)
    started, launched = [], tasks.rollouts.likelihood.launch_program
    monkeypatch.setattr(
        tasks.rollouts.likelihood, "launch_program", lambda *told: (started.append(told[1]), launched(*told))[1]
    )
    for _ in range(2):
        result = measure(run, "base", base, gold, given, {}, sets=("test", "validation"))
    assert len(started) == 1 and len(started[0].gold) == 2
    assert set(load_measured([result]).estimates) == {"test", "validation"}
    assert set(load_measured([result]).estimates["test"]) == {"loss"}


def test_another_beta_is_another_result_and_without_pairs_there_is_none(run, tmp_path, gold, pairs):
    base = policy(tmp_path / "base", 0.2)
    given = measured_pairs(run, base, pairs)
    measure(run, "base", base, gold, given, {})
    one = given["validation"]
    with pytest.raises(DriftError, match=r"config\.pairs\.validation\.beta: 0\.5 → 0\.7"):
        measure(run, "base", base, gold, {"validation": PairsMeasured(one.pairs, one.reference, 0.7, one.loss)}, {})
    alone = measure(run, "alone", base, gold, {}, {})
    assert alone.finished is not None
    assert alone.finished.manifest.config == {"dtype": "float32", "quantize": False}


def test_a_dry_run_plans_it_and_says_what_it_takes(run, tmp_path, gold, pairs):
    planning = Run(run.directory, planning=True)
    base = Artifact(tmp_path / "base", None)
    given = measured_pairs(planning, base, pairs)
    result = measure(planning, "base", base, gold, given, {})
    assert load_measured([result]).estimates == {} and load_likelihood(result) == {}
    stage = planning.plan[-1].stage
    assert (stage.estimate.samples, stage.estimate.devices) == (60, 1)
    assert "models.training.likelihood" in stage.command


def test_what_is_measured_while_training_is_told_to_the_program_and_decides_nothing(run, tmp_path, gold, pairs):
    base = policy(tmp_path / "base", 0.2)
    given = measured_pairs(run, base, pairs)["validation"]
    at = run.place("iter-2")
    learned = measure_reference(at, base, {"current": pairs}, TRAINING).measured("current")

    def trained(held_out: PairsMeasured | None, launch: LaunchConfig = TRAINING.launch) -> Result:
        return train_on_pairs(at, base, {"current": learned}, Training(CONFIG, launch), held_out)

    result = trained(given)
    told = json.loads((result.path / "program.json").read_text())
    assert (told["held_out"], told["held_out_reference"]) == (str(given.pairs.path), str(given.reference.path))
    for again in (trained(None), trained(given, LaunchConfig(evaluations=0))):
        assert again.finished is not None and again.finished.reused
    later = Artifact(tmp_path / "later", None)
    with pytest.raises(RuntimeError, match="needed before the stage"):
        train(run.place("other"), base, pairs, Training(SupervisedConfig(), LaunchConfig()), later)
