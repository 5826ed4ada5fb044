"""Of a folder it is said what was read, what was not, and to which split it belongs."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pytest

from data.prepare.sources import data_files, hub_name, is_here, named_splits
from tests.unit.data.sources.reading import SUMS, line, read, refusal, write_files

ONE, TWO, THREE = line(1), line(2), line(3)
HIDDEN = "its name begins with a dot or an underscore"


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.jsonl", "test.jsonl"], ["test", "train"]),
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"], ["train", "train"]),
        (["test-00000-of-00001.jsonl", "part.jsonl"], [None, "test"]),
        (["dev.csv", "valid.json", "val_1.jsonl", "my-validation.jsonl"], ["validation"] * 4),
        (["eval.jsonl", "evaluation.jsonl", "gsm8k-test.jsonl", "test2.jsonl"], ["test"] * 4),
        (["TRAIN.JSONL", "Test.Jsonl.GZ"], ["test", "train"]),
        (["training.jsonl", "train_sft.jsonl", "a.train.jsonl"], ["train"] * 3),
        (["train/0.jsonl", "test/0.jsonl", "validation/more/0.jsonl"], ["test", "train", "validation"]),
        (["contest.jsonl", "latest.jsonl", "devices.jsonl", "retrain.jsonl", "values.jsonl"], [None] * 5),
        (["test_of_train.jsonl", "devtest.jsonl", "testset-1.jsonl"], ["test"] * 3),
    ],
)
def test_the_name_of_a_file_in_a_folder_says_its_split(tmp_path: Path, names: list[str], splits: list[Any]) -> None:
    row = {".csv": "question,answer\n1,1\n", ".json": f"[{ONE}]"}
    write_files(tmp_path, {name: row.get(Path(name).suffix, ONE) for name in names})
    found = read(tmp_path)
    assert sorted(map(str, found.splits)) == sorted(map(str, splits))
    assert named_splits(tmp_path) == {split for split in splits if split}


def test_a_file_that_is_named_itself_is_of_no_split(tmp_path: Path) -> None:
    write_files(tmp_path, {"test.jsonl": ONE})
    assert read(tmp_path / "test.jsonl").splits == [None]


def test_what_is_hidden_or_no_data_is_passed_over_and_named(tmp_path: Path) -> None:
    files = {
        "train.jsonl": ONE,
        "deep/er/p2.JSONL": TWO,
        "p3.jsonl.zst": THREE,
        "p4.txt": line(4),
        "book.xlsx": "?",
        "_summary.json": "{}",
        ".hidden.jsonl": line(5),
        ".ipynb_checkpoints/train-checkpoint.jsonl": line(6),
        ".git/a.jsonl": line(7),
        "__pycache__/a.json": line(8),
        "dataset_infos.json": "{}",
    }
    found = read(write_files(tmp_path, files))
    assert sorted(row["answer"] for row in found.rows) == ["1", "2", "3"]
    assert found.counts == {"train.jsonl": 1, "p2.JSONL": 1, "p3.jsonl.zst": 1}
    assert found.skipped == {
        **dict.fromkeys(("_summary.json", ".hidden.jsonl", ".ipynb_checkpoints", ".git", "__pycache__"), HIDDEN),
        "p4.txt": "its name has no known data suffix",
        "book.xlsx": "no .xlsx file is read: save it as CSV",
        "dataset_infos.json": "it describes data and holds none",
    }


def test_links_are_followed_once(tmp_path: Path) -> None:
    data = write_files(tmp_path / "data", {"a.jsonl": ONE, "sub/b.jsonl": TWO})
    write_files(tmp_path / "other", {"c.jsonl": THREE})
    (data / "linked").symlink_to(tmp_path / "other", target_is_directory=True)
    (data / "z_again").symlink_to(data / "sub", target_is_directory=True)
    (data / "circle").symlink_to(data, target_is_directory=True)
    (data / "above").symlink_to(tmp_path, target_is_directory=True)
    (data / "file.jsonl").symlink_to(tmp_path / "other" / "c.jsonl")
    (data / "broken.jsonl").symlink_to(tmp_path / "absent")
    found = read(data)
    assert found.counts == {"a.jsonl": 1, "b.jsonl": 1, "c.jsonl": 1, "file.jsonl": 1}
    assert found.skipped == {
        **dict.fromkeys(("z_again", "circle", "above"), "its folder has been read already"),
        "broken.jsonl": "it is a link to nothing",
    }


def test_other_files_of_a_folder_are_a_pipe_or_a_socket(tmp_path: Path) -> None:
    os.mkfifo(write_files(tmp_path, {"a.jsonl": ONE}) / "pipe.jsonl")
    assert read(tmp_path).skipped == {"pipe.jsonl": "it is not a file"}


def saved(folder: Path, **splits: list[dict[str, str]]) -> Path:
    made = {name: datasets.Dataset.from_list(rows) for name, rows in splits.items()}
    datasets.DatasetDict(made).save_to_disk(str(folder))
    return folder


def test_a_saved_data_set_of_several_splits(tmp_path: Path) -> None:
    folder = saved(tmp_path / "dict", train=SUMS[:3], validation=SUMS[3:4], test=SUMS[4:])
    found = read(folder)
    assert (found.rows, found.splits) == (SUMS, ["train"] * 3 + ["validation", "test"])
    assert found.skipped == {}
    chosen = read(Path(f"{folder}:test"))
    assert (chosen.rows, chosen.splits, named_splits(Path(f"{folder}:test"))) == (SUMS[4:], [None], frozenset())
    write_files(folder, {"more.jsonl": ONE})
    assert read(folder).skipped == {"more.jsonl": "the saved data set does not list it"}
    assert "It has train, validation, test. Choose one, as in" in refusal(Path(f"{folder}:dev"))
    (folder / "test" / "state.json").unlink()
    assert "saved in an unknown layout" in refusal(folder)


def test_a_data_set_that_was_saved_in_a_folder_of_others(tmp_path: Path) -> None:
    datasets.Dataset.from_list(SUMS).save_to_disk(str(tmp_path / "saved"))
    write_files(tmp_path, {"a.jsonl": ONE})
    assert read(tmp_path).rows == [json.loads(ONE), *SUMS]


SNAPSHOT = {
    "main/test-00000-of-00001.jsonl": ONE,
    "main/train-00000-of-00001.jsonl": TWO,
    "socratic/train.jsonl": THREE,
}
CARD = """---
license: mit
configs:
- config_name: {name}
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: [main/test-*]
- config_name: socratic
  data_files: socratic/*.jsonl
---
# A data set
"""


@pytest.mark.parametrize(
    "described",
    [
        {},
        {"README.md": "---\nconfigs: []\n---\n"},
        {"README.md": "---\n[\n---\n", "dataset_infos.json": '{"main": {}, "socratic": {}}'},
        {"dataset_infos.json": "{"},
        {"README.md": CARD.format(name="main"), ".gitattributes": ""},
    ],
)
def test_a_snapshot_of_several_configurations_is_refused_with_their_names(
    tmp_path: Path, described: dict[str, str]
) -> None:
    folder = write_files(tmp_path / "snap", {**SNAPSHOT, **described})
    assert f"2 configurations: main, socratic. Choose one, as in {folder}:main." in refusal(folder)
    assert "2 configurations: main, socratic" in refusal(Path(f"{folder}:algebra"))
    for path in (Path(f"{folder}:main"), folder / "main"):
        found = read(path)
        assert [(row["answer"], split) for row, split in zip(found.rows, found.splits, strict=True)] == [
            ("1", "test"),
            ("2", "train"),
        ]
        assert is_here(path)
        assert named_splits(path) == {"train", "test"}
    assert read(Path(f"{folder}:main")).skipped["train.jsonl"] == "it is not of the configuration main"
    only = read(Path(f"{folder}:main:test"))
    assert ([row["answer"] for row in only.rows], only.splits) == (["1"], [None])
    assert "no 'validation'. Its files are named after test, train." in refusal(Path(f"{folder}:main:validation"))


def test_the_default_configuration_of_a_readme_is_read(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "snap", {**SNAPSHOT, "README.md": CARD.format(name="default")})
    assert sorted(row["answer"] for row in read(folder).rows) == ["1", "2"]
    assert read(folder).skipped == {"train.jsonl": "it is not of the configuration default"}
    assert [row["answer"] for row in read(Path(f"{folder}:socratic")).rows] == ["3"]
    assert folder / "README.md" in data_files(folder)


@pytest.mark.parametrize(
    "files",
    [
        {"data/train-00000-of-00001.jsonl": ONE, "data/test-00000-of-00001.jsonl": TWO, "README.md": "---\na: 1\n---"},
        {"train.jsonl": ONE, "test/x.jsonl": TWO, "dataset_infos.json": '{"default": {}}'},
        {"train/0.jsonl": ONE, "test/0.jsonl": TWO},
    ],
)
def test_a_snapshot_of_one_configuration_is_read_whole(tmp_path: Path, files: dict[str, str]) -> None:
    assert sorted(map(str, read(write_files(tmp_path, files)).splits)) == ["test", "train"]


SEVERAL = {"data/train_sft-0.jsonl": ONE, "data/train_gen-0.jsonl": TWO, "data/test_sft-0.jsonl": THREE}
NAMED = "---\nconfigs:\n- config_name: default\n  data_files:\n"
NAMED += "".join(f"  - split: {name}\n    path: data/{name}-*\n" for name in ("train_sft", "train_gen", "test_sft"))


def test_of_several_splits_of_training_one_has_to_be_chosen(tmp_path: Path) -> None:
    snap, saved = write_files(tmp_path / "snap", {**SEVERAL, "README.md": f"{NAMED}---\n"}), tmp_path / "saved"
    sets = {name: datasets.Dataset.from_list([json.loads(row)]) for name, row in (("train_a", ONE), ("train_b", TWO))}
    datasets.DatasetDict(sets).save_to_disk(str(saved))
    for source, names in ((snap, ["train_gen", "train_sft"]), (saved, ["train_a", "train_b"])):
        assert f"{source} holds 2 splits for training: {', '.join(names)}." in refusal(source)
        assert f"Choose one, as in {source}:{names[0]}, and" in refusal(source)
        assert len(read(Path(f"{source}:{names[0]}")).rows) == 1
    assert "2 splits for training" in refusal(Path(f"{snap}:train"))
    assert "as in " + f"{snap}:default:train_gen" in refusal(Path(f"{snap}:default"))


@pytest.mark.parametrize("card", [{}, {"README.md": f"{NAMED}---\n"}])
@pytest.mark.parametrize(("name", "answer"), [("train_sft", "1"), ("train_gen", "2"), ("test_sft", "3"), ("test", "3")])
def test_a_split_is_chosen_by_its_whole_name(tmp_path: Path, card: dict[str, str], name: str, answer: str) -> None:
    folder = write_files(tmp_path / "snap", {**SEVERAL, **card})
    found = read(Path(f"{folder}:{name}"))
    assert ([row["answer"] for row in found.rows], found.splits) == ([answer], [None])
    assert "has no 'train_dpo'. Its files are named after " in refusal(Path(f"{folder}:train_dpo"))


def test_folders_that_name_no_split_are_one_data_set(tmp_path: Path) -> None:
    assert len(read(write_files(tmp_path, {"en/a.jsonl": ONE, "de/a.jsonl": TWO})).rows) == 2


def test_a_name_of_a_folder_here_is_not_one_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "openai" / "gsm8k", SNAPSHOT)
    assert hub_name(Path("openai/gsm8k:main")) is None
    assert [row["answer"] for row in read(Path("openai/gsm8k:socratic")).rows] == ["3"]
    assert hub_name(Path("openai/other:main")) == ("openai/other", None, "main")


ALPACA = '[{"instruction": "a", "input": "", "output": "b"}]'


def registry(folder: Path, entries: dict[str, Any]) -> Path:
    return write_files(folder, {"dataset_info.json": json.dumps(entries), "mine.json": ALPACA, "other.json": ALPACA})


def test_the_only_data_set_of_a_registry_is_read(tmp_path: Path) -> None:
    found = read(registry(tmp_path, {"mine": {"file_name": "mine.json"}}))
    assert found.rows == json.loads(ALPACA)
    assert found.skipped == {"other.json": "it is not of mine"}
    assert tmp_path / "dataset_info.json" in data_files(tmp_path)


def test_one_of_several_of_a_registry_must_be_chosen(tmp_path: Path) -> None:
    folder = registry(tmp_path, {"b": {"file_name": "mine.json"}, "a": {"file_name": "other.json"}})
    assert f"holds 2 data sets: a, b. Choose one, as in {folder}:a." in refusal(folder)
    assert read(Path(f"{folder}:b")).counts == {"mine.json": 1}
    assert "holds 2 data sets: a, b" in refusal(Path(f"{folder}:c"))


@pytest.mark.parametrize(
    ("entry", "row", "meant"),
    [
        (
            {"columns": {"prompt": "q", "query": "more", "response": "a", "system": "sys"}},
            {"q": "Q?", "more": "m", "a": "A.", "sys": "S", "id": 1},
            {"instruction": "Q?", "input": "m", "output": "A.", "system": "S", "id": 1},
        ),
        (
            {"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}},
            {"q": "Q?", "good": "g", "bad": "b"},
            {"instruction": "Q?", "chosen": "g", "rejected": "b"},
        ),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "dialog", "rejected": "bad"},
                "tags": {"role_tag": "who", "content_tag": "text", "user_tag": "u", "assistant_tag": "a"},
            },
            {"dialog": [{"who": "u", "text": "Hi?"}], "bad": {"who": "a", "text": "No."}},
            {"conversations": [{"from": "human", "value": "Hi?"}], "rejected": {"from": "gpt", "value": "No."}},
        ),
        (
            {
                "formatting": "sharegpt",
                "columns": {"messages": "messages"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                },
            },
            {"messages": [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]},
            {"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]},
        ),
    ],
)
def test_a_registry_says_what_columns_are_called(tmp_path: Path, entry: Any, row: Any, meant: Any) -> None:
    folder = registry(tmp_path, {"mine": {"file_name": "mine.json", **entry}})
    (folder / "mine.json").write_text(json.dumps([row]))
    assert read(folder).rows == [meant]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"file_name": "absent.json"}, "lists absent.json, which is not in it"),
        ({"file_name": "../mine.json"}, "lists ../mine.json, which is not in it"),
        ({"file_name": "/etc/passwd"}, "lists /etc/passwd, which is not in it"),
        ({"file_name": 3}, "lists 3, which is not in it"),
        ({"hf_hub_url": "owner/name"}, "is not here but at owner/name. Name it as on the hub"),
        ({"file_name": "mine.json", "formatting": "chatml"}, "there is no formatting 'chatml'"),
        ({"file_name": "mine.json", "columns": [1]}, "columns and tags must be names"),
    ],
)
def test_what_a_registry_says_wrongly_is_refused(tmp_path: Path, entry: Any, says: str) -> None:
    assert says in refusal(registry(tmp_path / "data", {"mine": entry}))


def test_a_registry_may_name_a_folder(tmp_path: Path) -> None:
    folder = registry(tmp_path, {"mine": {"file_name": "parts"}})
    write_files(folder / "parts", {"train.jsonl": ONE, "test.jsonl": TWO})
    found = read(folder)
    assert (sorted(map(str, found.splits)), found.counts) == (["test", "train"], {"test.jsonl": 1, "train.jsonl": 1})


@pytest.mark.parametrize("name", ["absent", "absent:main", "absent:main:test", "dir:x/y", "a.jsonl:test"])
def test_what_is_not_there_is_refused(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, {"a.jsonl": ONE, "dir/a.jsonl": ONE})
    assert f"There is no file {tmp_path / name}." in refusal(tmp_path / name)
    assert not is_here(tmp_path / name)
