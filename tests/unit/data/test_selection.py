"""Selection: which samples are trained on, and that every other one is counted with its reason."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.rows import Example, Problem, Sample, Score, Verdict
from data.selection import select_examples
from data.storage import read_rows, write_rows
from tasks.datasets.select import NothingKeptError, SelectConfig, nothing_kept, select
from tasks.stage.contract import Artifact
from tasks.stage.run import Run

Row = tuple[str, float | None, Verdict, str]  # text, value, verdict, finish reason


def correct(text: str, value: float = 1.0) -> Row:
    return text, value, "correct", "stop"


WRONG: Row = ("wrong", 0.0, "wrong", "stop")
UNPARSABLE: Row = ("what?", 0.0, "unparsable", "stop")
TIMEOUT: Row = ("slow", None, "timeout", "stop")
ERROR: Row = ("broken", None, "error", "stop")
TRUNCATED: Row = ("cut off", 0.0, "wrong", "length")


def problem(name: str) -> Problem:
    return Problem(name, [{"role": "user", "content": f"Question {name}"}], "5", None, "test", "train")


def rows_of(answers: dict[str, list[Row]]) -> tuple[list[Problem], list[Sample], list[Score]]:
    samples, scores = [], []
    for name, rows in answers.items():
        for index, (text, value, verdict, finish_reason) in enumerate(rows):
            samples.append(Sample(name, index, text, [index, 1, 2], finish_reason, "policy-1", 0, "sampling-1"))
            scores.append(Score(value, verdict, "", None, name, index, "exact@1"))
    return [problem(name) for name in answers], samples, scores


def run(
    answers: dict[str, list[Row]], min_reward: float = 1.0, limit: int = 10
) -> tuple[list[tuple[str, int]], Counter[str]]:
    counts: Counter[str] = Counter()
    examples = list(select_examples(*rows_of(answers), min_reward, limit, counts))
    return [(e.problem_id, e.index) for e in examples], counts


def test_an_example_carries_prompt_completion_token_ids_policy_and_reward() -> None:
    counts: Counter[str] = Counter()
    problems, samples, scores = rows_of({"a": [WRONG, correct("4+1=5", 0.75)]})
    (example,) = select_examples(problems, samples, scores, 0.5, 10, counts)
    assert example == Example("a", 1, problems[0].messages, "4+1=5", [1, 1, 2], "policy-1", 0.75, problems[0].source)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (correct("5"), "kept"),
        (WRONG, "wrong"),
        (UNPARSABLE, "unparsable"),
        (TIMEOUT, "timeout"),
        (ERROR, "error"),
        (TRUNCATED, "truncated"),
        (("right but cut off", 1.0, "correct", "length"), "truncated"),
        (("an error with a value", 1.0, "error", "stop"), "error"),
        (("a timeout with a value", 1.0, "timeout", "stop"), "timeout"),
        (correct("half right", 0.5), "below_min_reward"),
    ],
)
def test_a_sample_is_kept_or_dropped_for_one_reason(row: Row, reason: str) -> None:
    kept, counts = run({"a": [row]})
    assert counts == {"samples": 1, reason: 1}
    assert bool(kept) == (reason == "kept")


def test_the_reasons_add_up_to_the_samples() -> None:
    answers = {
        "a": [correct("5"), correct(" 5 "), correct("4+1=5"), correct("3+2=5"), WRONG, TRUNCATED],
        "b": [UNPARSABLE, TIMEOUT, ERROR, WRONG],
        "c": [correct("5")],
    }
    kept, counts = run(answers, limit=2)
    assert kept == [("a", 0), ("a", 2), ("c", 0)]
    assert counts == {
        "samples": 11,
        "kept": 3,
        "duplicate": 1,
        "over_limit": 1,
        "wrong": 2,
        "truncated": 1,
        "unparsable": 1,
        "timeout": 1,
        "error": 1,
    }
    assert sum(counts.values()) == 2 * counts["samples"]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("4+1=5", "4+1=5", True),
        ("4+1=5\n#### 5", "  4+1=5 \t #### 5\n", True),
        ("4+1=5", "4 + 1 = 5", False),
        ("Five", "five", False),
    ],
)
def test_answers_are_the_same_if_they_differ_in_white_space_only(first: str, second: str, same: bool) -> None:
    kept, counts = run({"a": [correct(first), correct(second)]})
    assert kept == ([("a", 0)] if same else [("a", 0), ("a", 1)])
    assert counts["duplicate"] == same


def test_the_same_answer_to_another_problem_is_no_duplicate() -> None:
    kept, counts = run({"a": [correct("5")], "b": [correct("5")]})
    assert kept == [("a", 0), ("b", 0)]
    assert counts["duplicate"] == 0


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 3), (4, 4), (10, 4)])
def test_at_most_so_many_answers_are_kept_per_problem(limit: int, expected: int) -> None:
    kept, counts = run({name: [correct(f"{n}") for n in range(4)] for name in "ab"}, limit=limit)
    assert kept == [(name, index) for name in "ab" for index in range(expected)]
    assert counts["over_limit"] == 2 * (4 - expected)


def test_duplicates_do_not_use_up_the_cut_off() -> None:
    kept, counts = run({"a": [correct("5"), correct("5"), correct("5"), correct("4+1=5")]}, limit=2)
    assert kept == [("a", 0), ("a", 3)]
    assert (counts["duplicate"], counts["over_limit"]) == (2, 0)


def test_the_best_rewards_are_kept_first_and_the_earlier_sample_among_equals() -> None:
    values = [0.2, 0.9, 0.5, 0.9, 0.7]
    kept, counts = run({"a": [correct(f"{i}", v) for i, v in enumerate(values)]}, min_reward=0.5, limit=3)
    assert kept == [("a", 1), ("a", 3), ("a", 4)]
    assert (counts["below_min_reward"], counts["over_limit"]) == (1, 1)


def test_of_two_equal_answers_the_one_with_the_higher_reward_is_kept() -> None:
    kept, _ = run({"a": [correct("5", 0.6), correct("5 ", 0.8)]}, min_reward=0.5)
    assert kept == [("a", 1)]


@pytest.mark.parametrize("change", ["missing score", "missing sample", "another sample's", "another problem's"])
def test_scores_that_do_not_belong_to_the_samples_are_refused(change: str) -> None:
    problems, samples, scores = rows_of({"a": [correct("5"), WRONG], "b": [WRONG, correct("6")]})
    if change == "missing score":
        scores.pop()
    elif change == "missing sample":
        samples.pop()
    elif change == "another sample's":
        scores[0], scores[1] = scores[1], scores[0]
    else:
        scores[1], scores[3] = scores[3], scores[1]
    with pytest.raises(ValueError, match=r"was given for sample|argument"):
        list(select_examples(problems, samples, scores, 1.0, 10, Counter()))


def test_memory_is_bounded_by_the_samples_of_one_problem() -> None:
    taken = 0

    def counted(samples: list[Sample]) -> Iterator[Sample]:
        nonlocal taken
        for sample in samples:
            taken += 1
            yield sample

    problems, samples, scores = rows_of({str(n): [correct(str(i)) for i in range(4)] for n in range(500)})
    examples = select_examples(problems, counted(samples), scores, 1.0, 10, Counter())
    assert taken == 0
    next(examples)
    assert taken <= 5


def store(folder: Path, answers: dict[str, list[Row]]) -> list[Artifact]:
    artifacts = []
    for row_type, rows in zip((Problem, Sample, Score), rows_of(answers), strict=True):
        path = folder / f"{row_type.__name__}.parquet"
        write_rows(row_type, path, rows)
        artifacts.append(Artifact(path, "digest"))
    return artifacts


def test_the_stage_writes_the_examples_and_its_manifest_the_reasons(tmp_path: Path) -> None:
    inputs = store(tmp_path, {"a": [correct("5"), correct("5"), WRONG], "b": [TRUNCATED]})
    result = select(Run(tmp_path / "run").place("iter-1"), *inputs, SelectConfig())
    assert result.finished is not None
    manifest = result.finished.manifest
    assert (manifest.rows_in, manifest.rows_out) == (4, 1)
    assert manifest.dropped == {"duplicate": 1, "wrong": 1, "truncated": 1}
    assert [e.completion for e in read_rows(Example, result.path / "examples.parquet")] == ["5"]


def test_nothing_to_train_on_is_an_error_that_leaves_no_finished_stage(tmp_path: Path) -> None:
    inputs = store(tmp_path, {"a": [WRONG, WRONG, TRUNCATED]})
    run = Run(tmp_path / "run")
    with pytest.raises(NothingKeptError, match=r"None of the 3 samples can be trained on \(2 wrong, 1 truncated\)"):
        select(run.place("iter-1"), *inputs, SelectConfig())
    assert not (run.directory / "iter-1" / "select").exists()


def test_nothing_kept_says_how_many_for_what_reason_and_what_to_change() -> None:
    message = str(nothing_kept(Counter({"samples": 12_000, "truncated": 1_000, "wrong": 10_000, "unparsable": 1_000})))
    for words in (
        "None of the 12,000 samples",
        "(10,000 wrong, 1,000 truncated, 1,000 unparsable)",
        "are kept",
        "--model",
        "generate.samples",
        "generate.max_tokens",
        "--few-shot",
    ):
        assert words in message
