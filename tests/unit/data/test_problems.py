"""Problem files become split, de-duplicated problems, and every unusable file is refused in plain words."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data.prepare import problems
from data.prepare.problems import AS_TEXT, split_of, with_prefix
from data.prepare.reading import Reading, Tally
from data.prepare.sources import DataFileError
from data.rewards.answer import has_answer
from data.rows import Problem
from data.storage import read_rows
from tasks.datasets.problems import ProblemSource, expected_counts, prepare_problems
from tasks.stage.contract import DriftError
from tasks.stage.run import Run
from tests.unit.reading import load_problems, read_few_shot, read_problems

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write problems as JSONL, given as (question, answer), and return the file."""

    def to_file(rows: list[tuple[object, object]], name: str = "problems.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
        return path

    return to_file


def sums(start: int, end: int) -> list[tuple[object, object]]:
    return [(f"What is {n} plus {n}?", f"{n}+{n}={2 * n}\n#### {2 * n}") for n in range(start, end)]


GOOD = b'{"question": "1 + 1?", "answer": "2"}\n'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ["is empty", "one problem per row, such as 'question' and 'answer'"]),
        (b"\n  \n", ["is empty"]),
        (GOOD + b'{"question": "1"', ["line 2: malformed JSON", "one JSON object"]),
        (GOOD + b"\n" + b"What is 2?\n", ["line 3: malformed JSON"]),
        (b'{"question": "a", "answer": "1"}{"question": "b", "answer": "2"}\n', ["line 1: malformed JSON"]),
        (b"[" * 100_000 + b"\n", ["row 1: malformed JSON"]),
        (GOOD + b'["question", "answer"]\n', ["line 2: list is not a JSON object"]),
        (b"17\n", ["line 1: int is not a JSON object"]),
        (b"null\n", ["line 1: NoneType is not a JSON object"]),
        (
            b'{"query": "1 + 1?", "answer": "2"}\n',
            ["line 1: No format has the columns 'query', 'answer'", "needs 'question'"],
        ),
        (b"{}\n", ["line 1: No format has the columns none", "also needs 'question', 'answer'"]),
        (b'{"question": "", "answer": "2"}\n', ["line 1: no 'question' (question is '')"]),
        (b'{"question": " \\n", "answer": "2"}\n', ["no 'question' (question is ' \\n')"]),
        (b'{"question": 17, "answer": "2"}\n', ["no 'question' (question is 17)"]),
        (b'{"question": null, "answer": "2"}\n', ["no 'question' (question is None)"]),
        (GOOD + GOOD + b'{"question": "1 + 1?"}\n', ["line 3: no 'answer' (fields 'question')"]),
        (b'{"question": "1 + 1?", "answer": ""}\n', ["no 'answer' (answer is '')"]),
        (b'{"question": "1 + 1?", "answer": null}\n', ["no 'answer' (answer is None)"]),
        (b'{"question": "1 + 1?", "answer": {}}\n', ["no 'answer' (answer is {})"]),
        (b'{"question": "1 + 1?", "answer": ["2", "3"]}\n', ["'answer' holds 2 answers (['2', '3'])"]),
        (b'{"question": "1?", "answer": "One and one\\nmake two"}\n', ["line 1", "has no final answer", "####"]),
        (b'{"question": "1?", "answer": "####"}\n', ["line 1: the answer '####' has no final answer"]),
        (GOOD + b'{"question": "\xe9t\xe9?", "answer": "2"}\n', ["not UTF-8", "Convert the file to UTF-8"]),
    ],
)
def test_an_unusable_file_is_refused_naming_file_line_and_field(
    tmp_path: Path, content: bytes, says: list[str]
) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataFileError) as refused:
        read_problems(path, None, has_answer)
    for words in (str(path), *says):
        assert words in str(refused.value)
    assert len(str(refused.value)) < 600


def test_a_file_that_is_not_there_is_refused_saying_from_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataFileError) as refused:
        read_problems(Path("absent.jsonl"), None, has_answer)
    assert "There is no file absent.jsonl" in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_problem_is_read_with_its_prompt_reference_and_source(write: Write) -> None:
    (problem,) = read_problems(write([("1 + 1?", "1+1=2\n#### 2")]), "test", has_answer).problems
    assert problem.messages == [{"role": "user", "content": "1 + 1?"}]
    assert (problem.reference, problem.response) == ("1+1=2\n#### 2", "1+1=2\n#### 2")
    assert (problem.source, problem.split) == ("problems.jsonl", "test")


def test_fields_that_are_not_needed_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('\n{"level": 5, "answer": "2", "question": "1 + 1?"}\n\n')
    read = read_problems(path, None, has_answer)
    assert (read.rows, [p.reference for p in read.problems]) == (1, ["2"])


@pytest.mark.parametrize(("number", "reference"), [(18, "18"), (-3, "-3"), (0, "0"), (2.5, "2.5")])
def test_a_number_is_an_answer(write: Write, number: float, reference: str) -> None:
    (problem,) = read_problems(write([("How many?", number)]), None, has_answer).problems
    assert problem.reference == reference


def test_references_that_are_compared_as_text_are_counted_and_the_first_is_named(write: Write) -> None:
    tally = Tally()
    path = write([("1?", "2"), ("2?", "C++"), ("3?", "x+1"), ("4?", r"1, 2, \ldots, n")])
    assert len(list(problems.read_problems(Reading(path), None, has_answer, tally))) == 4
    assert tally.noticed[AS_TEXT] == 2
    assert tally.first == {AS_TEXT: f"{path}, line 2: 'C++'"}


def test_duplicates_by_normalized_prompt_are_counted_and_the_first_is_kept(write: Write) -> None:
    spellings = ["What is  1 + 1?", "what is 1 + 1?\n", "WHAT IS １ + 1?", "What\u200b is 1 + 1?", "What is 1 + 1 ?"]
    held_out = {"validation": write(sums(0, 1), "v.jsonl"), "test": write(sums(1, 2), "t.jsonl")}
    loaded = load_problems(ProblemSource(problems=write([(q, i) for i, q in enumerate(spellings)]), **held_out), 0)
    assert (loaded.rows, loaded.dropped) == (7, {"duplicate": 3})
    assert [(p.messages[0]["content"], p.reference) for p in loaded.splits["train"]] == [
        ("What is  1 + 1?", "0"),
        ("What is 1 + 1 ?", "4"),
    ]


def test_the_split_of_a_problem_stays_when_rows_are_added_or_reordered(write: Write) -> None:
    def splits(rows: list[tuple[object, object]]) -> dict[str, str]:
        return {p.id: p.split for p in read_problems(write(rows), None, has_answer).problems}

    few, many = splits(sums(0, 100)), splits(sums(0, 400)[::-1])
    assert few.items() <= many.items()
    assert (len(few), len(many)) == (100, 400)


def test_a_tenth_each_goes_to_validation_and_test() -> None:
    counts = [split_of(f"{n:016x}") for n in range(1000)]
    assert {split: counts.count(split) for split in set(counts)} == {"validation": 100, "test": 100, "train": 800}


def ids(problems: list[Problem]) -> set[str]:
    return {p.id for p in problems}


def test_the_splits_of_one_file_are_disjoint_and_no_row_is_lost(write: Write) -> None:
    loaded = load_problems(ProblemSource(problems=write(sums(0, 200) + sums(0, 7))), 0)
    splits = [ids(loaded.splits[name]) for name in ("train", "validation", "test")]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 200
    assert all(splits)
    assert (loaded.rows, loaded.dropped) == (207, {"duplicate": 7})


def test_held_out_files_win_over_training_and_what_leaked_is_removed_and_counted(write: Write) -> None:
    source = ProblemSource(
        problems=write(sums(0, 50)),
        validation=write(sums(40, 60), "validation.jsonl"),
        test=write([(str(q).upper(), a) for q, a in sums(55, 70)], "test.jsonl"),
        transfer=write(sums(0, 3), "transfer.jsonl"),
    )
    loaded = load_problems(source, 0)
    assert {name: len(problems) for name, problems in loaded.splits.items()} == {
        "train": 37,
        "validation": 15,
        "test": 15,
        "transfer": 3,
    }
    assert loaded.dropped == {"train_also_in_held_out": 13, "validation_also_in_held_out": 5}
    assert loaded.rows == 88 == sum(map(len, loaded.splits.values())) + sum(loaded.dropped.values())
    everything = [ids(problems) for problems in loaded.splits.values()]
    assert sum(map(len, everything)) == len(set.union(*everything))


def test_a_validation_file_replaces_only_the_tenth_for_validation(write: Write) -> None:
    problems, validation = write(sums(0, 200)), write(sums(900, 905), "validation.jsonl")
    without = load_problems(ProblemSource(problems=problems), 0).splits
    given = load_problems(ProblemSource(problems=problems, validation=validation), 0).splits
    assert {p.source for p in given["validation"]} == {"validation.jsonl"}
    assert ids(given["test"]) == ids(without["test"])
    assert ids(given["train"]) == ids(without["train"]) | ids(without["validation"])


def test_limits_cut_each_split_and_are_counted(write: Write) -> None:
    source = ProblemSource(problems=write(sums(0, 200)), limit=5, limit_validation=3, limit_test=1000)
    whole = load_problems(ProblemSource(problems=source.problems), 0).splits
    loaded = load_problems(source, 0)
    assert loaded.splits["train"] == whole["train"][:5]
    assert loaded.splits["validation"] == whole["validation"][:3]
    assert loaded.splits["test"] == whole["test"]
    over = {"over_limit_train": len(whole["train"]) - 5, "over_limit_validation": len(whole["validation"]) - 3}
    assert loaded.dropped == over


def test_few_shot_turns_are_put_in_front_and_the_ids_stay(write: Write) -> None:
    source = ProblemSource(problems=write(sums(0, 60)))
    shots = write([("What is 1 less than 3?", "3-1=2\n#### 2"), ("Two?", 2)], "shots.jsonl")
    turns = [
        {"role": "user", "content": "What is 1 less than 3?"},
        {"role": "assistant", "content": "3-1=2\n#### 2"},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
    ]
    assert read_few_shot(shots) == turns
    plain = load_problems(source, 0).splits
    prefixed = load_problems(source.model_copy(update={"few_shot": shots}), 0).splits
    for split, found in plain.items():
        assert [p.messages for p in prefixed[split]] == [[*turns, *p.messages] for p in found]
        assert [(p.id, p.reference, p.split) for p in prefixed[split]] == [(p.id, p.reference, p.split) for p in found]
    problem = plain["train"][0]
    assert with_prefix(problem, turns).id == problem.id
    assert len(problem.messages) == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ('{"question": "a"}', "line 1: this is prompts .* also needs 'answer'"),
        ("[]", "is empty"),
        ("{", "line 1"),
    ],
)
def test_an_unusable_few_shot_file_is_refused(write: Write, tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "shots.jsonl").write_text(content)
    source = ProblemSource(problems=write(sums(0, 60)), few_shot=tmp_path / "shots.jsonl")
    with pytest.raises(DataFileError, match=says):
        load_problems(source, 0)


@pytest.mark.parametrize(("count", "split"), [(1, "(train|validation|test)"), (3, "(train|validation|test)")])
def test_a_split_without_problems_is_refused_with_what_to_give(write: Write, count: int, split: str) -> None:
    with pytest.raises(DataFileError, match=f"leaves no problem for {split}.* {count} rows? read.*Give more problems"):
        load_problems(ProblemSource(problems=write(sums(0, count))), 0)


def test_training_that_is_wholly_held_out_is_refused(write: Write) -> None:
    source = ProblemSource(
        problems=write(sums(0, 5)), validation=write(sums(0, 5), "v.jsonl"), test=write(sums(8, 9), "t.jsonl")
    )
    with pytest.raises(DataFileError, match="leaves no problem for train"):
        load_problems(source, 0)


def test_the_stage_writes_one_file_per_split_that_has_problems_and_counts_what_was_dropped(
    write: Write, tmp_path: Path
) -> None:
    source = ProblemSource(problems=write(sums(0, 60) + sums(0, 4)))
    result = prepare_problems(Run(tmp_path / "run"), source)
    assert result.finished_files() == {"train.parquet", "validation.parquet", "test.parquet", "data.json"}
    assert result.finished is not None
    manifest = result.finished.manifest
    assert (manifest.rows_in, manifest.rows_out, manifest.dropped) == (64, 60, {"duplicate": 4})
    for split, found in load_problems(source, 0).splits.items():
        if found:
            assert list(read_rows(Problem, result.path / f"{split}.parquet")) == found


def test_the_stage_is_reused_for_the_same_content_elsewhere_and_drifts_when_a_row_changes(
    write: Write, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    prepare_problems(run, ProblemSource(problems=write(sums(0, 60))))
    moved = ProblemSource(problems=write(sums(0, 60), "moved.jsonl"))
    again = prepare_problems(run, moved)
    assert again.finished is not None
    assert again.finished.reused
    with pytest.raises(DriftError, match=r"inputs\.problems"):
        prepare_problems(run, ProblemSource(problems=write(sums(0, 61))))
    with pytest.raises(DriftError, match=r"config\.limits\.train: None → 9"):
        prepare_problems(run, moved.model_copy(update={"limit": 9}))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"train": 160, "validation": 20, "test": 20, "transfer": 0}),
        ({"limit": 50, "limit_test": 7}, {"train": 50, "validation": 20, "test": 7, "transfer": 0}),
        ({"transfer": 9, "limit_transfer": 5}, {"train": 160, "validation": 20, "test": 20, "transfer": 5}),
        ({"validation": 30}, {"train": 180, "validation": 30, "test": 20, "transfer": 0}),
        ({"validation": 30, "test": 40, "transfer": 5}, {"train": 200, "validation": 30, "test": 40, "transfer": 5}),
    ],
)
def test_the_dry_run_expects_as_many_problems_as_the_files_have_lines(
    write: Write, settings: dict[str, int], expected: dict[str, int]
) -> None:
    given: dict[str, object] = {
        name: value if name.startswith("limit") else write(sums(500, 500 + value), f"{name}.jsonl")
        for name, value in settings.items()
    }
    assert expected_counts(ProblemSource.model_validate({"problems": write(sums(0, 200)), **given})) == expected


def test_the_embedded_problems_are_used_where_no_file_is_given() -> None:
    source = ProblemSource(limit=10, limit_transfer=7)
    loaded = load_problems(source, 0)
    assert {name: len(problems) for name, problems in loaded.splits.items()} == expected_counts(source)
    assert loaded.dropped == {"over_limit_train": 2990, "over_limit_transfer": 293}


def test_a_system_message_is_put_before_problems_that_have_none(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    own = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1 + 1?"}]
    rows = [{"question": f"{n} + 2?", "answer": str(n + 2)} for n in range(60)]
    answered = {"messages": [*own, {"role": "assistant", "content": "2"}]}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, answered]))
    plain = load_problems(ProblemSource(problems=path), 0).splits
    found = load_problems(ProblemSource(problems=path, system="Be brief."), 0).splits
    said = [p.messages[0]["content"] for problems in found.values() for p in problems]
    assert (said.count("Be brief."), said.count("Be kind.")) == (60, 1)
    assert {s: [p.id for p in problems] for s, problems in found.items()} == {
        s: [p.id for p in problems] for s, problems in plain.items()
    }


def test_rows_that_cannot_be_used_are_dropped_and_counted_if_asked(write: Write) -> None:
    path = write([*sums(0, 60), ("", "2"), ("1?", None), ("2?", "no\nnumber")])
    loaded = load_problems(ProblemSource(problems=path, unusable="drop"), 0)
    assert loaded.rows == 63
    assert loaded.dropped == {"empty question": 1, "no answer": 1, "no final answer": 1}
    assert sum(map(len, loaded.splits.values())) == 60
