"""The names of a folder's files say what is trained on, and what a set that is given apart replaces."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data.prepare.problems import read_problems, split_of
from data.prepare.reading import Reading, Tally
from data.prepare.sources import DataFileError
from flows.commands.cli import main
from tasks.datasets.inputs import dataset_artifact, expected_rows
from tasks.datasets.problems import ProblemSource, expected_counts
from tests.unit.reading import load_problems, read_few_shot, read_pairs


def sums(start: int, count: int) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} plus {n}?", "answer": f"#### {2 * n}"} for n in range(start, start + count)]


def folder(path: Path, files: Mapping[str, list[dict[str, Any]]]) -> Path:
    for name, rows in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbers(problems: list[Any]) -> set[int]:
    return {int(problem.reference.removeprefix("#### ")) // 2 for problem in problems}


TRAIN, VALIDATION, TEST = set(range(100)), set(range(100, 110)), set(range(200, 220))
FILES = {"train.jsonl": sums(0, 100), "dev.jsonl": sums(100, 10), "test-0.jsonl": sums(200, 20)}


def test_every_row_is_of_the_split_that_its_file_is_named_after(tmp_path: Path) -> None:
    source = ProblemSource(problems=folder(tmp_path / "all", FILES))
    splits = load_problems(source, 0).splits
    assert [numbers(splits[name]) for name in ("train", "validation", "test")] == [TRAIN, VALIDATION, TEST]
    assert expected_counts(source) == {"train": 100, "validation": 10, "test": 20, "transfer": 0}


@pytest.mark.parametrize("first", ["train.jsonl", "part.jsonl"])
def test_of_training_files_a_tenth_is_set_aside_for_what_has_no_file(tmp_path: Path, first: str) -> None:
    source = ProblemSource(problems=folder(tmp_path / "two", {first: sums(0, 100), "test.jsonl": sums(200, 20)}))
    splits = load_problems(source, 0).splits
    assert numbers(splits["test"]) == TEST
    assert numbers(splits["train"]) | numbers(splits["validation"]) == TRAIN
    assert {split_of(problem.id) for problem in splits["validation"]} == {"validation"}
    assert len(splits["train"]) > 80
    assert expected_counts(source) == {"train": 90, "validation": 10, "test": 20, "transfer": 0}


def test_training_files_alone_are_split_as_a_file_is(tmp_path: Path) -> None:
    shards = {f"train-{n}-of-2.jsonl": sums(50 * n, 50) for n in range(2)}
    whole = folder(tmp_path, {"all.jsonl": sums(0, 100)}) / "all.jsonl"
    found, same = (
        {split: numbers(problems) for split, problems in load_problems(ProblemSource(problems=path), 0).splits.items()}
        for path in (folder(tmp_path / "shards", shards), whole)
    )
    assert found == same


def test_a_set_that_is_given_apart_replaces_the_files_of_its_name(tmp_path: Path) -> None:
    problems = folder(tmp_path / "all", FILES)
    other = folder(tmp_path, {"other.jsonl": sums(300, 5)}) / "other.jsonl"
    source = ProblemSource(problems=problems, test=other)
    splits = load_problems(source, 0).splits
    assert [numbers(splits[name]) for name in ("train", "validation", "test")] == [
        TRAIN,
        VALIDATION,
        set(range(300, 305)),
    ]
    assert expected_counts(source) == {"train": 100, "validation": 10, "test": 5, "transfer": 0}


def test_a_folder_given_as_a_set_is_its_files_of_that_name(tmp_path: Path) -> None:
    all_ = folder(tmp_path / "all", FILES)
    splits = load_problems(ProblemSource(problems=all_, test=all_, validation=all_), 0).splits
    assert [numbers(splits[name]) for name in ("train", "validation", "test")] == [TRAIN, VALIDATION, TEST]
    assert expected_rows(all_, "test") == 20


@pytest.mark.parametrize(
    ("names", "split", "kept"),
    [
        (["train.jsonl", "test.jsonl"], "validation", [1]),
        (["train.jsonl", "validation.jsonl"], "test", [1]),
        (["train.jsonl", "validation.jsonl", "test.jsonl"], "transfer", [2]),
        (["train.jsonl"], "test", [0]),
        (["a.jsonl", "b.jsonl"], "test", [0, 1]),
        (["a.jsonl", "test.jsonl"], "test", [1]),
    ],
)
def test_of_a_folder_without_files_of_that_name_the_held_out_ones_serve(
    tmp_path: Path, names: list[str], split: Any, kept: list[int]
) -> None:
    path = folder(tmp_path / "given", {name: sums(number, 1) for number, name in enumerate(names)})
    problems = list(read_problems(Reading(path), split, None, Tally()))
    assert numbers(problems) == set(kept)
    assert {problem.split for problem in problems} == {split}


def test_lists_of_one_file_are_sets_as_files_of_a_folder_are(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"train": sums(0, 100), "validation": sums(100, 10), "test": sums(200, 20)}))
    splits = load_problems(ProblemSource(problems=path), 0).splits
    assert [numbers(splits[name]) for name in ("train", "validation", "test")] == [TRAIN, VALIDATION, TEST]
    given = load_problems(ProblemSource(problems=path, test=path), 0).splits
    assert numbers(given["test"]) == TEST


def test_worked_examples_are_not_of_held_out_files(tmp_path: Path) -> None:
    path = folder(tmp_path / "shots", {"train.jsonl": sums(0, 1), "test.jsonl": sums(1, 1)})
    assert [turn["content"] for turn in read_few_shot(path)] == ["What is 0 plus 0?", "#### 0"]


def test_pairs_of_held_out_files_are_not_trained_on(tmp_path: Path) -> None:
    pair = {"chosen": "a", "rejected": "b"}
    files = {name: [{"prompt": name, **pair}] for name in ("train_prefs.jsonl", "test_prefs.jsonl", "more.jsonl")}
    path = folder(tmp_path / "pairs", files)
    assert {p.messages[0]["content"] for p in read_pairs(path).pairs} == {"train_prefs.jsonl", "more.jsonl"}
    assert expected_rows(path, "train") == 2
    for name in ("train_prefs.jsonl", "more.jsonl"):
        (path / name).unlink()
    with pytest.raises(DataFileError, match=r"test_prefs.jsonl is of test. Name a file directly"):
        read_pairs(path)


def test_the_digest_is_of_what_is_read_and_of_what_says_so(tmp_path: Path) -> None:
    path = folder(tmp_path / "all", FILES)
    before = dataset_artifact(path).digest
    (path / ".ipynb_checkpoints").mkdir()
    (path / ".ipynb_checkpoints" / "a.jsonl").write_text("{}")
    (path / "notes.txt").write_text("more")
    assert dataset_artifact(path).digest == before
    assert dataset_artifact(Path(f"{path}:test")).digest != before
    assert dataset_artifact(Path(f"{path}:test")).digest != dataset_artifact(Path(f"{path}:train")).digest
    assert dataset_artifact(tmp_path / "absent:test").digest is None
    registry = {name: {"file_name": "a.json", "columns": {"prompt": name}} for name in ("x", "y")}
    folder(tmp_path / "lf", {"a.json": [{"x": "1", "y": "2", "output": "3"}], "dataset_info.json": [registry]})
    x, y = (dataset_artifact(Path(f"{tmp_path / 'lf'}:{name}")).digest for name in registry)
    assert x != y
    moved = shutil.copytree(tmp_path / "lf", tmp_path / "moved")
    assert dataset_artifact(Path(f"{moved}:x")).digest == x


def test_the_commands_say_what_was_read_and_what_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(Path("all"), FILES)
    Path("all/notes.txt").write_text("more")
    for command in (["inspect", "all"], ["format", "all", "--output", "rows"]):
        assert main(["data", *command]) == 0
        printed = " ".join(capsys.readouterr().out.split())
        for words in ("train.jsonl │ 100 │ train", "test-0.jsonl │ 20 │ test", "dev.jsonl │ 10 │ validation"):
            assert words in printed
        assert "all/notes.txt │ its name has no known data suffix" in printed
    told = json.loads(Path("rows/_summary.json").read_text())
    assert told["files"] == {"all/dev.jsonl": 10, "all/test-0.jsonl": 20, "all/train.jsonl": 100}
    assert told["file_splits"]["all/dev.jsonl"] == "validation"
    assert list(told["skipped_files"]) == ["all/notes.txt"]


def test_rows_that_cannot_be_read_are_dropped_with_a_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    rows = "".join(json.dumps(row) + "\n" for row in sums(0, 60))
    path.write_text(rows + '{"question": "What is 8? \\ud83d", "answer": "11"}\n{"question": "What is 2')
    found = load_problems(ProblemSource(problems=path, unusable="drop"), 0)
    assert (found.rows, found.dropped) == (62, {"half a surrogate pair": 1, "malformed JSON": 1})
    with pytest.raises(DataFileError, match=r"line 61: .*unusable: drop"):
        load_problems(ProblemSource(problems=path), 0)
    path.write_text("oops\n" * 3)
    assert main(["data", "inspect", str(path)]) == 2
    assert f"None of 3 rows can be read. {path}, line 1: malformed JSON" in capsys.readouterr().err
    path.write_text("oops\n" + rows)
    assert main(["data", "inspect", str(path)]) == 0
    assert "malformed JSON" in capsys.readouterr().out
