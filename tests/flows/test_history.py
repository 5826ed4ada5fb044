"""`autodidact runs`, `trace` and `compare`: what they print is checked against the files, or worked out by hand."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data.judge_questions import Opinion
from data.metrics import Interval, Outcome, SetMetrics
from data.rows import Example, Pair, Problem, Sample, Score
from data.storage import read_rows, write_rows
from flows import rest_em, spin
from flows.commands.cli import main
from flows.commands.console import show_summary
from tasks.history.runs import load_history
from tasks.history.state import expected_stages, run_state
from tasks.loop.loop import run_loop
from tasks.stage import contract
from tasks.stage.contract import Artifact, Finished, OnDrift, Stage, load_finished, run_stage
from tasks.stage.run import RunInUseError, open_run
from tests.flows.conftest import make_config, make_spin, prepared
from tests.unit.tasks.test_run import another_process_holds

Text = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A runs folder with a finished ReST-EM run and a finished SPIN run, of two iterations each. Only to be read."""
    folder = tmp_path_factory.mktemp("home")
    with prepared(cache):
        run_loop("ReST-EM", rest_em.loop, make_config(folder, run="em"), OnDrift.REFUSE)
        run_loop("SPIN", spin.loop, make_spin(folder, run="spin"), OnDrift.REFUSE)
    for name in ("prefect", "services"):
        (folder / "runs" / name).mkdir()
    return folder / "runs"


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of the ReST-EM run, alone in its runs folder, to be changed."""
    return Path(shutil.copytree(home / "em", tmp_path / "runs" / "em"))


def finished(stage: Path) -> Finished:
    found = load_finished(stage)
    assert found is not None
    return found


def rows(table: str) -> list[list[str]]:
    """The cells of a printed table."""
    return [[cell.strip() for cell in line[1:-1].split("│")] for line in table.splitlines() if line.startswith("│")]


def listed(folder: Path, capsys: Text) -> dict[str, list[str]]:
    assert main(["runs", "--runs-dir", str(folder)]) == 0
    found: dict[str, list[str]] = {}
    for name, *cells in rows(capsys.readouterr().out):
        if name:
            found[name] = cells
        else:  # cells that take more than one line
            last = list(found)[-1]
            found[last] = [f"{above} {below}".strip() for above, below in zip(found[last], cells, strict=True)]
    return found


# --- runs


def test_every_run_is_listed_with_what_its_files_say_and_other_folders_are_left_out(home, capsys):
    found = listed(home, capsys)
    assert found.keys() == {"em", "spin"}
    for name, algorithm in (("em", "ReST-EM"), ("spin", "SPIN")):
        best = json.loads((home / name / "summary.json").read_text())["best_iteration"]
        interval = json.loads((home / name / "summary.json").read_text())["iterations"][best]["greedy pass@1"]
        assert found[name][:4] == [algorithm, "finished", "2 of 2", f"{best}: greedy pass@1 {interval}"]


def test_the_size_counts_hard_links_once(home):
    links = [path for path in (home / "em").rglob("*") if path.is_file()]
    assert sum(p.stat().st_size for p in links) > run_state(home / "em").size
    assert run_state(home / "em").size == sum({p.stat().st_ino: p.stat().st_size for p in links}.values())


def test_without_runs_a_sentence_says_so(tmp_path, capsys):
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    assert f"There are no runs in {tmp_path} yet." in capsys.readouterr().out
    assert main(["runs", "--runs-dir", str(tmp_path / "none")]) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_running_run_shows_who_holds_it_and_is_left_in_peace(copy, capsys):
    (copy / "iter-2" / ".train.attempt").mkdir()
    with another_process_holds(copy) as holder:
        state = listed(copy.parent, capsys)["em"][1]
        assert state.startswith(f"running: iter-2/train, process {holder.pid} on ") and "since 20" in state
        with pytest.raises(RunInUseError), open_run(copy, {}, OnDrift.REFUSE):
            pytest.fail("looking at it took the lock away")


def test_looking_does_not_write(copy, capsys):
    (copy / ".lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in copy.parent.rglob("*")}
    listed(copy.parent, capsys)
    assert main(["trace", "em", "--runs-dir", str(copy.parent)]) == 0
    assert {path: path.stat().st_mtime_ns for path in copy.parent.rglob("*")} == before


def test_an_unfinished_run_names_the_stage_that_is_next_or_half_done(copy, capsys):
    assert listed(copy.parent, capsys)["em"][1] == "finished"
    (copy / "summary.json").unlink()
    assert listed(copy.parent, capsys)["em"][1] == "unfinished: the report is next"
    for name in ("best", "final", "iter-2/evaluate", "iter-2/train"):
        shutil.rmtree(copy / name)
    assert listed(copy.parent, capsys)["em"][1:3] == ["unfinished: iter-2/train is next", "1 of 2"]
    (copy / "iter-2" / ".train.attempt").mkdir()
    assert listed(copy.parent, capsys)["em"][1] == "unfinished: iter-2/train is half done"


def test_what_a_finished_run_left_behind_of_an_earlier_plan_does_not_make_it_unfinished(copy, capsys):
    shutil.copytree(copy / "iter-2" / "generate", copy / "iter-3" / "generate")
    left = copy / "iter-1" / ".train.attempt"
    left.mkdir()
    os.utime(left, (0, 0))
    assert listed(copy.parent, capsys)["em"][1] == "finished"


def test_a_rebuild_that_was_stopped_between_two_stages_goes_on_after_the_last_one_made(copy, capsys):
    file = copy / "iter-1" / "score" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ended": "2999-01-01T00:00:00+00:00"}))
    assert listed(copy.parent, capsys)["em"][1] == "unfinished: iter-1/select is next"


def test_a_run_that_only_began_has_done_nothing(tmp_path, capsys):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".lock").touch()
    assert listed(tmp_path, capsys)["begun"][:3] == ["unknown", "unfinished: nothing is done yet", "0"]


@pytest.mark.parametrize("content", [b'{"stage": ', b"\xff\xfe"])
def test_a_corrupt_manifest_is_listed_with_what_to_do_and_not_traced(copy, capsys, content):
    (copy / "iter-1" / "score" / "manifest.json").write_bytes(content)
    assert main(["runs", "--runs-dir", str(copy.parent)]) == 0
    out = capsys.readouterr().out
    assert "corrupt: iter-1/score" in out
    assert re.search(r"em is corrupt: \S+/iter-1/score/?\S* .*[Rr]un the same command again", out)
    assert main(["trace", "em", "--runs-dir", str(copy.parent)]) == 2
    assert main(["compare", "em", "em2", "--runs-dir", str(copy.parent)]) == 2


def test_a_configuration_that_cannot_be_read_is_listed(copy, capsys):
    (copy / "config.json").write_text("[")
    assert main(["runs", "--runs-dir", str(copy.parent)]) == 0
    assert "it is rewritten at every start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rule", "accuracies", "following"),
    [
        ("paper", [0.5, 0.75], "iter-2/generate"),
        ("paper", [0.5, 0.5], "best"),
        ("paper", [0.5, 0.5, 0.75], "best"),  # the last one was made under another rule
        ("none", [0.5, 0.25], "iter-2/generate"),
    ],
)
def test_the_stop_rule_decides_what_is_next(tmp_path, capsys, rule, accuracies, following):
    told = {"algorithm": "ReST-EM", "iterations": 3, "stop": {"rule": rule}}
    run = made_run(tmp_path, "made", told)
    names = [f"iter-{number}/{name}" for number in (1, 2, 3) for name in ("generate", "train", "evaluate")]
    (run / "plan.json").write_text(json.dumps(["problems", "base", "iter-0/evaluate", *names, "best", "final/best"]))
    for stage in ("problems", "base", "iter-1/generate", "iter-1/train"):
        publish(run, stage, {"note.txt": "made"})
    for number, accuracy in enumerate(accuracies):
        evaluation(run, f"iter-{number}/evaluate", "validation", [n < 4 * accuracy for n in range(4)])
    assert listed(tmp_path, capsys)["made"][1] == f"unfinished: {following} is next"


def test_a_run_writes_down_which_stages_it_plans_in_order(home):
    for name in ("em", "spin"):
        history = load_history(home / name)
        by_end = sorted(history.stages, key=lambda stage: history.stages[stage].manifest.ended)
        assert history.plan == expected_stages(history) == by_end


def test_an_older_run_which_wrote_down_neither_plan_nor_measure_is_read(copy, capsys):
    (copy / "plan.json").unlink()
    summary = json.loads((copy / "summary.json").read_text())
    for row in summary["iterations"]:
        row["pass@1 greedy"] = row.pop("greedy pass@1")
    kept = {key: value for key, value in summary.items() if key not in ("measure", "measures", "findings")}
    (copy / "summary.json").write_text(json.dumps(kept))
    os.utime(copy / "summary.json")
    assert listed(copy.parent, capsys)["em"][1:3] == ["finished", "2 of 2"]
    show_summary(copy)
    printed = capsys.readouterr().out
    assert "pass@1 greedy" in printed and "Held out to the end: greedy pass@1" in printed
    shutil.rmtree(copy / "final" / "best")
    (copy / "summary.json").unlink()
    assert listed(copy.parent, capsys)["em"][1] == "unfinished: final/base was the last stage done"


# --- trace


def traced(home: Path, run: str, key: str, capsys: Text, code: int = 0) -> str:
    assert main(["trace", run, key, "--runs-dir", str(home)]) == code
    return capsys.readouterr().out


def first(row_type: type, path: Path, **values: Any) -> Any:
    return next(row for row in read_rows(row_type, path) if all(getattr(row, k) == v for k, v in values.items()))


def test_an_example_is_followed_back_to_its_sample_score_problem_policy_and_the_base(home, capsys):
    run = home / "em"
    example = first(Example, run / "iter-2" / "select" / "examples.parquet")
    here = {"problem_id": example.problem_id, "index": example.index}
    sample = first(Sample, run / "iter-2" / "generate" / "samples", **here)
    score = first(Score, run / "iter-2" / "score" / "scores", **here)
    problem = first(Problem, run / "problems" / "train.parquet", id=example.problem_id)
    policy = finished(run / "iter-1" / "train").artifact("policy")
    out = traced(home, "em", f"iter-2/{example.problem_id}/{example.index}", capsys)
    for words in (
        f"{run / 'iter-2' / 'select' / 'examples.parquet'}\n            trained on in iter-2/train",
        f"3 tokens, finish reason stop, seed {sample.seed}",
        f"sampling {sample.sampling}: ",
        f"| {sample.text}",
        f"1, correct, answer read as {score.answer}, by {score.grader}\n            | {score.explanation}",
        f"{problem.id}, from {problem.source}, split train",
        f"| {problem.messages[0]['content']}",
        f"reference:\n            | {problem.reference}",
        f"iter-1/train, iteration 1, wrote the sample\n            {policy.path}\n            digest {policy.digest}",
        "training began from base/policy",
        f"digest {finished(run / 'base').artifact('policy').digest}",
        "the embedded tiny model, trained on 3,000 demonstrations",
    ):
        assert words in out
    made = finished(run / "iter-1" / "select").manifest
    wrong = made.dropped["wrong"]
    assert f"iter-1/select/examples.parquet: {made.rows_out} of 400 rows (left out: {wrong} wrong" in out
    assert f"MLflow run {json.loads((run / 'mlflow.json').read_text())['parent']}" in out
    assert "agrees   the sample names the policy that iter-2/generate recorded" in out
    assert "agrees   iter-1/train/policy has the digest that iter-2/generate recorded" in out
    assert "DIFFERS" not in out


def test_a_pair_is_followed_back_through_both_files_that_its_policy_was_trained_on(home, capsys):
    run = home / "spin"
    pair = first(Pair, run / "iter-2" / "pair" / "pairs.parquet")
    out = traced(home, "spin", f"iter-2/{pair.problem_id}/{pair.index}", capsys)
    assert f"from arithmetic\n            | {pair.chosen}" in out
    assert f"from iter-1/train/policy ({pair.rejected_source})\n            | {pair.rejected}" in out
    assert "score       none: SPIN trains without a reward" in out
    assert "iter-1/pair/pairs.parquet: 100 of 100 rows; answers of base/policy" in out
    earlier = first(Pair, run / "iter-1" / "pair" / "pairs.parquet")
    assert "trained on in iter-1/train, iter-2/train" in traced(home, "spin", f"iter-1/{earlier.problem_id}/0", capsys)


def test_a_gold_example_and_a_users_pair_end_at_where_they_were_read(tmp_path, capsys):
    run = made_run(tmp_path, "gold", {"algorithm": "DPO", "pairs": "p.jsonl"})
    prompt = [{"role": "user", "content": "1 + 1?"}]
    problems = publish(run, "problems", {"train.parquet": [Problem("ab" * 8, prompt, "2", "2", "gold.jsonl", "train")]})
    given = {"problems": problems.artifact("train.parquet")}
    publish(
        run, "iter-1/examples", {"examples.parquet": [Example("ab" * 8, 0, prompt, "2", None, "gold.jsonl")]}, given
    )
    pairs = [Pair("cd" * 8, 0, prompt, "2", "three", None, None, "p.jsonl", "p.jsonl")]
    publish(run, "iter-1/pairs", {"pairs.parquet": pairs})
    out = traced(tmp_path, "gold", "iter-1/ab/0", capsys)
    assert "completion  a gold answer, from gold.jsonl\n            | 2" in out and "split train" in out
    out = traced(tmp_path, "gold", "iter-1/cd/0", capsys)
    assert "rejected    from p.jsonl\n            | three" in out and "policy" not in out


def test_without_a_key_some_are_shown_and_the_beginning_of_an_id_will_do(home, capsys):
    assert main(["trace", "em", "--runs-dir", str(home)]) == 0
    out = capsys.readouterr().out
    count = len(list(read_rows(Example, home / "em" / "iter-1" / "select" / "examples.parquet")))
    assert f"iter-1/select/examples.parquet, {count} rows" in out
    key = re.findall(r"iter-1/[0-9a-f]{16}/\d+", out)[0]
    iteration, problem, index = key.split("/")
    assert traced(home, "em", f"{iteration}/{problem[:10]}/{index}", capsys).startswith(f"{key} of ")


def left_out(home: Path) -> tuple[str, str]:
    """The key of a sample that was not selected, and why."""
    here = home / "em" / "iter-1"
    kept = {(e.problem_id, e.index) for e in read_rows(Example, here / "select" / "examples.parquet")}
    score = next(s for s in read_rows(Score, here / "score" / "scores") if s.value == 0)
    assert (score.problem_id, score.index) not in kept
    return f"iter-1/{score.problem_id}/{score.index}", f"{score.verdict}: {score.explanation}"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("0123", "'0123' is not a sample key. A key is ITERATION/PROBLEM/INDEX"),
        ("iter-7/0123/0", "has no training rows of iter-7, only of iter-1, iter-2"),
        ("iter-1/0123456789abcdef/0", "is not a training row of"),
        ("iter-2/1/0", "problem ids with training rows in iter-2: 1"),
    ],
)
def test_a_key_of_nothing_says_what_there_is(home, capsys, key, says):
    assert main(["trace", "em", key, "--runs-dir", str(home)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("autodidact: ") and says in error
    assert re.search(r"iter-\d/[0-9a-f]{16}/\d", error) or "Give more of the id" in error


def test_a_sample_that_was_not_selected_says_why(home, capsys):
    key, why = left_out(home)
    assert main(["trace", "em", key, "--runs-dir", str(home)]) == 2
    error = capsys.readouterr().err
    assert f"{key} is not a training row of {home / 'em'}: it was sampled, but iter-1/select left it out" in error
    assert f"Its verdict is {why}" in error


def some_key(run: Path, iteration: int) -> str:
    example = first(Example, run / f"iter-{iteration}" / "select" / "examples.parquet")
    return f"iter-{iteration}/{example.problem_id}/{example.index}"


def test_a_judge_from_elsewhere_is_no_contradiction(tmp_path, capsys):
    run, prompt = made_run(tmp_path, "judged", {"algorithm": "ReST-EM"}), [{"role": "user", "content": "1 + 1?"}]
    problems = publish(run, "problems", {"train.parquet": [Problem("ab" * 8, prompt, "2", None, "p", "train")]})
    base = publish(run, "base", {"policy/config.json": "{}"}).artifact("policy")
    given = {"problems": problems.artifact("train.parquet")}
    sample = Sample("ab" * 8, 0, "2", [1], "stop", base.require(), 5, "s")
    drawn = publish(run, "iter-1/generate", {"samples/0.parquet": [sample]}, given | {"policy": base})
    score = Score(5.0, "correct", "fine", None, "ab" * 8, 0, "judge@2")
    opinion = Opinion("ab" * 8, 0, -1, False, 0, "all of it", "5", "")
    files = {"scores/0.parquet": [score], "opinions/0.parquet": [opinion]}
    judged = given | {"samples": drawn.artifact("samples")}
    scored = publish(run, "iter-1/score", files, judged | {"judge": Artifact(tmp_path, "0" * 64)})
    example = Example("ab" * 8, 0, prompt, "2", [1], base.require())
    publish(run, "iter-1/select", {"examples.parquet": [example]}, judged | {"scores": scored.artifact("scores")})
    out = traced(tmp_path, "judged", "iter-1/ab/0", capsys)
    assert "DIFFERS" not in out and "judge     " not in out and "read as 5\n            | all of it" in out


def test_a_policy_that_is_not_the_one_that_was_asked_is_said_to_differ(tmp_path, capsys):
    run, prompt = made_run(tmp_path, "made", {"algorithm": "ReST-EM"}), [{"role": "user", "content": "1 + 1?"}]
    problems = publish(run, "problems", {"train.parquet": [Problem("ab" * 8, prompt, "2", None, "p", "train")]})
    wrote = publish(run, "base", {"policy/config.json": "{}"}).artifact("policy").require()
    given = {"problems": problems.artifact("train.parquet"), "policy": Artifact(run, "0" * 64)}
    sample = Sample("ab" * 8, 0, "2", [1], "stop", wrote, 5, "s")
    samples = publish(run, "iter-1/generate", {"samples/0.parquet": [sample]}, given).artifact("samples")
    example = Example("ab" * 8, 0, prompt, "3", [1], wrote)
    publish(run, "iter-1/select", {"examples.parquet": [example]}, {"problems": given["problems"], "samples": samples})
    out = traced(tmp_path, "made", "iter-1/ab/0", capsys, code=1)
    for words in (
        "agrees   iter-1/generate/samples has the digest that iter-1/select recorded",
        "DIFFERS  the training row has the text and token ids of its sample",
        "agrees   the training row names the policy that its sample names",
        "DIFFERS  the sample names the policy that iter-1/generate recorded",
        "DIFFERS  no stage of the run has the policy that iter-1/generate recorded, digest 0000",
        "3 of 7 checks fail",
    ):
        assert words in out


def test_rows_that_are_not_those_that_were_written_are_refused(copy, capsys):
    key, (file, *_) = some_key(copy, 1), sorted((copy / "iter-1" / "score" / "scores").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert main(["trace", "em", key, "--runs-dir", str(copy.parent)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"autodidact: {file} ") and "its SHA-256 differs" in error


# --- compare


def compared(folder: Path, capsys: Text, *arguments: str) -> str:
    assert main(["compare", *arguments, "--runs-dir", str(folder)]) == 0
    return capsys.readouterr().out


def refused(folder: Path, capsys: Text, *arguments: str) -> str:
    assert main(["compare", *arguments, "--runs-dir", str(folder)]) == 2
    return capsys.readouterr().err


def publish(
    run: Path, stage: str, files: dict[str, Any], inputs: dict[str, Artifact] | None = None, **config: Any
) -> Finished:
    """Publish a stage that holds these files: texts, or rows."""

    def work(attempt: Path) -> contract.Outcome:
        for name, content in files.items():
            (attempt / name).parent.mkdir(exist_ok=True)
            if isinstance(content, str):
                (attempt / name).write_text(content)
            else:
                write_rows(type(content[0]), attempt / name, content)
        return contract.Outcome()

    return run_stage(run, Stage(stage, 1, config, inputs or {}), work)


def made_run(folder: Path, name: str, config: dict[str, Any] | None = None) -> Path:
    (folder / name).mkdir()
    (folder / name / ".lock").touch()
    (folder / name / "config.json").write_text(json.dumps({"run": name, **(config or {})}))
    return folder / name


def evaluation(
    run: Path,
    stage: str,
    set_name: str,
    greedy: Sequence[bool],
    correct: Sequence[int] | None = None,
    start: int = 0,
    temperature: float = 1.0,
    grader: str = "g@1",
    rows: str = "rows",
) -> None:
    """An evaluation of problems p<start>, p<start + 1>, …, with two samples each."""
    outcomes = [
        Outcome(
            problem_id=f"p{start + n}",
            greedy_correct=right,
            greedy_verdict="correct" if right else "wrong",
            greedy_text="",
            samples=2,
            correct=correct[n] if correct else 0,
            majority_correct=float(right),
        )
        for n, right in enumerate(greedy)
    ]
    share = sum(greedy) / len(greedy)
    interval = Interval(value=share, low=share, high=share)
    metrics = SetMetrics(
        problems=len(greedy),
        greedy=interval,
        pass_at={2: interval},
        majority_at={2: interval},
        samples_per_problem=2,
        temperature=temperature,
        top_p=0.95,
        verdicts={},
        truncated=0.0,
        mean_tokens=1.0,
    )
    files = {
        f"{set_name}/outcomes.json": json.dumps([o.model_dump() for o in outcomes]),
        f"{set_name}/metrics.json": metrics.model_dump_json(by_alias=True),
    }
    problems = {f"problems_{set_name}": Artifact(run, f"{rows} {start}")}
    sampled = {"temperature": temperature, "samples": 2}
    publish(run, stage, files, problems, sampled=sampled, grader=grader)


def two_runs(folder: Path, before: Sequence[bool], after: Sequence[bool], **changes: Any) -> None:
    evaluation(made_run(folder, "a", {"seed": 0}), "iter-0/evaluate", "validation", before)
    evaluation(made_run(folder, "b", {"seed": 0}), "iter-0/evaluate", "validation", after, **changes)


def test_the_figures_are_those_of_the_outcomes(home, capsys):
    out = compared(home, capsys, "em", "spin")
    final = {"Test": "test", "Transfer": "transfer"}
    for title, name in final.items():
        found = {
            run: {
                o["problem_id"]: o["greedy_correct"]
                for o in json.loads((home / run / "final" / "best" / name / "outcomes.json").read_text())
            }
            for run in ("em", "spin")
        }
        em, other = found["em"], found["spin"]
        difference = sum(other[p] - em[p] for p in em) / len(em)
        gained, lost = sum(other[p] > em[p] for p in em), sum(other[p] < em[p] for p in em)
        table = out[out.index(f"\n{title}, best iteration of each: 2 | 2") :]
        row = next(row for row in rows(table) if row[0] == "greedy pass@1")
        assert row[3].startswith(f"{difference:.1%} [") and row[5] == f"{gained}, {lost}"
        summary = {run: json.loads((home / run / "summary.json").read_text()) for run in found}
        assert row[1:3] == [summary[run]["final"][name]["best"] for run in ("em", "spin")]
    validation = rows(out[out.index("\nValidation") : out.index("\nTest")])
    labels = [row[0] for row in validation]
    measures = ("greedy pass@1", "pass@1", "pass@4", "maj@4")
    assert labels == [name for number in range(3) for name in (f"iteration {number}", *measures)]
    assert "validation: n = 100 problems" in out and "from 4 samples at temperature 1, top-p 0.95; 95 %" in out


def test_one_set_alone_is_compared_where_asked(home, capsys):
    out = compared(home, capsys, "em", "spin", "--set", "test")
    assert "\nTest, best" in out and "Validation" not in out and "Transfer" not in out


@pytest.mark.parametrize(
    ("before", "after", "difference", "clear", "changed"),
    [
        # Of two problems one is gained: a resample gains none, one or both with chances 1/4, 1/2, 1/4.
        ([0, 0], [1, 0], "50.0% [0.0%, 100.0%]", "no", "1, 0"),
        # Of eight, seven are gained. The eighth is drawn 0 to 3 times with a chance of 98.9 %, 0 to 2 with 93.3 %.
        ([0] * 8, [1] * 7 + [0], "87.5% [62.5%, 100.0%]", "yes", "7, 0"),
        ([1, 1, 0], [1, 1, 0], "0.0% [0.0%, 0.0%]", "no", "0, 0"),
        ([1, 0], [0, 1], "0.0% [-100.0%, 100.0%]", "no", "1, 1"),
        ([1, 1], [0, 0], "-100.0% [-100.0%, -100.0%]", "yes", "0, 2"),
    ],
)
def test_the_difference_and_its_interval_are_paired(tmp_path, capsys, before, after, difference, clear, changed):
    two_runs(tmp_path, list(map(bool, before)), list(map(bool, after)))
    out = compared(tmp_path, capsys, "a", "b", "--set", "validation")
    row = next(row for row in rows(out) if row[0] == "greedy pass@1")
    assert row[3:] == [difference, clear, changed]


def test_pass_at_k_and_majority_are_compared_problem_by_problem(tmp_path, capsys):
    right = [True, False]
    evaluation(made_run(tmp_path, "a"), "iter-0/evaluate", "validation", right, correct=[1, 1])
    evaluation(made_run(tmp_path, "b"), "iter-0/evaluate", "validation", [False, False], correct=[1, 0])
    found = {row[0]: row[1:] for row in rows(compared(tmp_path, capsys, "a", "b"))}
    # Of two samples each, one right one is found by drawing both.
    assert found["pass@2"][:3] == ["100.0% [100.0%, 100.0%]", "50.0% [0.0%, 100.0%]", "-50.0% [-100.0%, 0.0%]"]
    assert found["maj@2"][:3] == ["50.0% [0.0%, 100.0%]", "0.0% [0.0%, 0.0%]", "-50.0% [-100.0%, 0.0%]"]


def test_other_problems_are_refused_and_common_ones_compared_if_asked(tmp_path, capsys):
    two_runs(tmp_path, [True, False, False], [True, True, False], start=1)
    error = refused(tmp_path, capsys, "a", "b")
    assert "of the 3 and 3 problems of validation they share 2" in error and "--common" in error
    out = compared(tmp_path, capsys, "a", "b", "--common")
    # p1 and p2: the first solves neither, the second both.
    assert next(row for row in rows(out) if row[0] == "greedy pass@1")[1:4] == [
        "0.0% [0.0%, 0.0%]",
        "100.0% [100.0%, 100.0%]",
        "100.0% [100.0%, 100.0%]",
    ]
    assert "n = 2 problems in both runs (2 in only one left out)" in out


def test_without_a_problem_in_common_nothing_is_compared(tmp_path, capsys):
    two_runs(tmp_path, [True, False], [True, False], start=5)
    for arguments in ((), ("--common",)):
        assert "have none in common" in refused(tmp_path, capsys, "a", "b", *arguments)


def test_what_the_evaluations_and_the_settings_differ_in_is_said(tmp_path, capsys):
    two_runs(tmp_path, [True], [False], temperature=0.5, grader="h@1")
    (tmp_path / "b" / "config.json").write_text(json.dumps({"run": "b", "seed": 1, "train": {"epochs": 2}}))
    out = compared(tmp_path, capsys, "a", "b")
    assert "temperature 1 | 0.5" in out
    assert "Note: they were evaluated with different settings: sampled.temperature 1.0 | 0.5." in out
    assert "different settings: grader g@1 | h@1" in out
    assert "Not compared on test: only runs with a finished evaluation on it can be compared." in out
    settings = [row for row in rows(out) if row[0] in ("seed", "train.epochs", "run")]
    assert settings == [["seed", "0", "1"], ["train.epochs", "absent", "2"]]


def test_the_same_ids_with_other_rows_are_pointed_out(tmp_path, capsys):
    two_runs(tmp_path, [True], [False], rows="rows with few-shot turns")
    assert "validation have the same ids, but their rows differ" in compared(tmp_path, capsys, "a", "b")


def test_bad_arguments_are_refused_with_what_to_do(home, capsys):
    assert "has no run 'none'. There are em, spin." in refused(home, capsys, "em", "none")
    assert "em is given twice" in refused(home, capsys, "em", "em")
    assert "required: RUN" in refused(home, capsys, "em")
    assert "choose from 'validation'" in refused(home, capsys, "em", "spin", "--set", "train")
    assert main(["trace", "none", "--runs-dir", str(home)]) == 2
    assert main(["runs", "extra"]) == 2


def test_a_set_that_is_not_measured_yet_is_refused_if_it_is_asked_for(tmp_path, capsys):
    two_runs(tmp_path, [True], [False])
    error = refused(tmp_path, capsys, "a", "b", "--set", "transfer")
    assert "no finished evaluation in common on transfer" in error and "autodidact runs" in error
    made_run(tmp_path, "empty")
    assert "no finished evaluation in common." in refused(tmp_path, capsys, "a", "empty")
    assert main(["trace", "empty", "--runs-dir", str(tmp_path)]) == 2
    assert "has no training rows yet" in capsys.readouterr().err


def test_looking_back_loads_neither_torch_nor_servers():
    heavy = "{'torch', 'transformers', 'prefect', 'mlflow', 'matplotlib.pyplot'}"
    code = f"import sys, flows.commands.history; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
