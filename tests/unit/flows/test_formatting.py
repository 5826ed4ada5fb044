"""`autodidact data format` writes the project's rows, which every loop reads back as they were."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.rows import Pair, Problem
from data.storage import read_rows
from flows.commands.cli import main
from tasks.datasets.problems import ProblemSource
from tests.unit.reading import load_problems, read_pairs

SHEEP = "A farmer from a village by the sea has many sheep and sells some of them at the market every week"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} plus {n}?", "answer": f"#### {2 * n}"} for n in range(count)]


def test_problems_are_split_and_read_back_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "sums.jsonl", [*numbered(200), *numbered(3)])
    assert main(["data", "format", path, "--output", "rows"]) == 0
    plain = load_problems(ProblemSource(problems=Path(path)), 0).splits
    files = {file.stem: list(read_rows(Problem, file)) for file in Path("rows").glob("*.parquet")}
    assert files == {split: problems for split, problems in plain.items() if problems}
    again = load_problems(ProblemSource(problems=Path("rows")), 0)
    assert not again.dropped
    assert {s: {p.id: p.source for p in problems} for s, problems in again.splits.items()} == {
        s: {p.id: p.source for p in problems} for s, problems in plain.items()
    }
    kept = {split: {"sums.jsonl": len(problems)} for split, problems in files.items()}
    assert json.loads(Path("rows/_summary.json").read_text()) == {
        "use": "problems",
        "formats": {"question-answer": "it has question, answer"},
        "rows": 203,
        "kept": kept,
        "dropped": {"duplicate": 3},
        "hidden_characters": 0,
        "noticed": {},
        "contaminated": 0,
        "repeated": [],
        "files": {path: 203},
        "file_splits": {},
        "skipped_files": {},
    }
    printed = capsys.readouterr().out
    for words in ("203 rows read as problems", "train.parquet", "duplicate", "sums.jsonl: "):
        assert words in printed


def test_sets_that_were_given_apart_stay_apart_when_they_are_read_back(tmp_path: Path) -> None:
    path = write(tmp_path / "sums.jsonl", numbered(200))
    test = write(tmp_path / "t.jsonl", [{"question": f"What is {n} less 1?", "answer": str(n - 1)} for n in range(40)])
    assert main(["data", "format", path, "--test", test, "--output", "rows"]) == 0
    source = ProblemSource(problems=Path(path), test=Path(test))
    given, again = (load_problems(s, 0).splits for s in (source, ProblemSource(problems=Path("rows"))))
    assert {s: {p.id for p in rows} for s, rows in again.items()} == {
        s: {p.id for p in rows} for s, rows in given.items()
    }
    assert {p.source for p in again["test"]} == {"t.jsonl"}


def test_pairs_that_repeat_what_is_held_out_are_left_out_and_the_rest_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [
        {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."},
        {"prompt": "Hi?", "chosen": "Hello.", "rejected": "Go."},
        {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."},
        {"prompt": f"{SHEEP}. How many?", "chosen": "Many.", "rejected": "Few."},
    ]
    held_out = write(tmp_path / "bench.jsonl", [{"question": f"{SHEEP}.", "answer": "3"}])
    path = write(tmp_path / "pairs.jsonl", pairs)
    arguments = ["--output", "rows", "--overlap.held-out", held_out]
    assert main(["data", "format", path, *arguments]) == 0
    printed = capsys.readouterr().out
    kept = list(read_rows(Pair, Path("rows/pairs.parquet")))
    assert [(p.messages[0]["content"], p.index, p.rejected) for p in kept] == [("Hi?", 0, "No."), ("Hi?", 1, "Go.")]
    again = read_pairs(Path("rows/pairs.parquet")).pairs
    assert [(p.problem_id, p.index, p.chosen, p.rejected) for p in again] == [
        (p.problem_id, p.index, p.chosen, p.rejected) for p in kept
    ]
    told = json.loads(Path("rows/_summary.json").read_text())
    assert (told["dropped"], told["contaminated"]) == ({"duplicate": 1, "contaminated": 1}, 1)
    kept_all = ["--output", "all", "--overlap.held-out", held_out, "--overlap.contaminated", "keep"]
    assert main(["data", "format", path, *kept_all]) == 0
    told = json.loads(Path("all/_summary.json").read_text())
    assert (told["dropped"], told["contaminated"]) == ({"duplicate": 1}, 1)
    write(tmp_path / "pairs.jsonl", pairs[3:])
    assert main(["data", "format", path, "--output", "none", "--overlap.held-out", held_out]) == 1
    assert f"▸ repeats: {SHEEP}." in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent.jsonl"], "There is no file absent.jsonl"),
        (["sums.jsonl", "--output", "full"], "full already exists and is not empty"),
        (["sums.jsonl", "--output", "sums.jsonl"], "sums.jsonl already exists"),
        (["sums.jsonl", "--few-shot", "sums.jsonl"], "few_shot depends on the policy"),
        (["sums.jsonl", "--long-prompts", "cut"], "long_prompts depends on the policy"),
        (["sums.jsonl", "--use", "pairs"], "It can serve as problems or demonstrations or prompts, not as pairs"),
        (["sums.jsonl", "--outptu", "x"], "unknown setting --outptu (did you mean --output?)"),
        (["sums.jsonl", "--overlap.contamination", "2"], "overlap.contamination"),
        (["pairs.jsonl", "--mixture", "sums.jsonl=1"], "mixture: mixtures and limits do not apply to pairs"),
        (["pairs.jsonl", "--limit", "3"], "limit: mixtures and limits do not apply to pairs"),
        ([], "problems: Field required"),
    ],
)
def test_what_cannot_be_formatted_is_refused_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    write(tmp_path / "sums.jsonl", numbered(3))
    write(tmp_path / "pairs.jsonl", [{"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["data", "format", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_data_set_of_which_nothing_is_left_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "texts.jsonl", [{"question": "Why?", "answer": "no\nnumber"}])
    assert main(["data", "format", path, "--unusable", "drop"]) == 1
    assert "no final answer" in capsys.readouterr().out
