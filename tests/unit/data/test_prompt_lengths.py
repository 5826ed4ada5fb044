"""A prompt that leaves no room for an answer is refused, dropped or cut, as configured, and counted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.prepare.prepare import prepare
from data.prepare.problems import read_problems
from data.prepare.reading import Reading, Tally
from data.prepare.splits import Splitting
from data.render import PromptTooLongError, completion_token_ids, prompt_token_ids
from data.rows import Problem, problem_id
from data.storage import read_rows
from flows.rest_em import RestEM
from flows.sft import SFT
from models import tiny
from models.config import EngineConfig
from tasks.datasets.problems import note_further, prepare_problems
from tasks.datasets.prompt_length import length_settings, policy_tokenizer, prompt_lengths
from tasks.loop import preflight
from tasks.stage.contract import OnDrift
from tasks.stage.run import Run

LONG = "Ada has 5 apples. " * (tiny.CONTEXT // 4) + "How many apples are there now?"


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_checked", set())


def config(folder: Path, loop: type[Any] = RestEM, texts: list[str] | None = None, **settings: Any) -> Any:
    texts = texts or [*(f"Ben has {n} pens. How many?" for n in range(60)), LONG]
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps({"question": text, "answer": "#### 5"}) + "\n" for text in texts))
    held_out = {name: folder / f"{name}.jsonl" for name in ("validation", "test")}
    for number, file in enumerate(held_out.values()):
        file.write_text(json.dumps({"question": f"Kim has {number} nuts. How many?", "answer": str(number)}))
    return loop.model_validate({"problems": path, "generate": {"max_tokens": 48}, **held_out, **settings})


def split(config: Any, folder: Path) -> tuple[list[Problem], Tally, Splitting]:
    tally, found = prepare(
        replace(config.preparation(0), lengths=prompt_lengths(config)), folder / "splits", note_further
    )
    return list(read_rows(Problem, folder / "splits" / "train.parquet")), tally, found


def test_by_default_the_run_is_refused(tmp_path: Path) -> None:
    given = config(tmp_path)
    with pytest.raises(PromptTooLongError, match=r"does not fit into the context"):
        split(given, tmp_path)
    with pytest.raises(PromptTooLongError, match=r"does not fit into the context"):
        preflight.check_problems(given, OnDrift.REFUSE)
    assert length_settings(given) == {}


def test_a_prompt_that_is_not_used_refuses_nothing(tmp_path: Path) -> None:
    given = config(tmp_path, limit=60)
    rows, _, found = split(given, tmp_path)
    assert (len(rows), found.dropped) == (60, {"over_limit_train": 1})
    preflight.check_problems(given, OnDrift.REFUSE)


def test_one_that_comes_into_use_where_another_is_left_out_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    text = " ".join(f"word{n}" for n in range(60))
    texts = [text, f"{text} more", LONG]
    given = config(tmp_path, limit=2, texts=texts)
    with pytest.raises(PromptTooLongError):
        preflight.check_problems(given, OnDrift.REFUSE)


def test_rows_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the checks before a run prepared the stage takes, and of a finished stage only the prompts are looked at."""
    reads: list[Path] = []

    def counted(reading: Reading, *told: Any) -> Iterator[Problem]:
        reads.append(reading.source)
        return read_problems(reading, *told)

    monkeypatch.setattr("data.prepare.prepare.read_problems", counted)
    given = config(tmp_path, texts=[f"Ben has {n} pens. How many?" for n in range(60)], runs_dir=tmp_path / "runs")
    preflight.check_problems(given, OnDrift.REFUSE)
    assert len(reads) == len(set(reads)) == 3
    run = Run(given.directory)
    made = prepare_problems(run, given)
    preflight.check_problems(given, OnDrift.REFUSE)
    assert len(reads) == 3 and not list(made.path.glob(".*"))
    with pytest.raises(PromptTooLongError):  # another model may read less
        preflight.check_problems(given.model_copy(update={"engine": EngineConfig(max_model_len=50)}), OnDrift.REFUSE)
    (tmp_path / "problems.jsonl").open("a").write(json.dumps({"question": "Kim has 1 nut?", "answer": "1"}))
    preflight.check_problems(given, OnDrift.REBUILD)
    assert len(reads) == 6


def test_it_is_dropped_and_counted(tmp_path: Path) -> None:
    given = config(tmp_path, long_prompts="drop")
    rows, tally, _ = split(given, tmp_path)
    assert (len(rows), tally.dropped, tally.cut) == (60, {"prompt_too_long": 1}, 0)
    preflight.check_problems(given, OnDrift.REFUSE)


def test_it_is_cut_from_the_left_until_it_fits(tmp_path: Path) -> None:
    given = config(tmp_path, long_prompts="cut")
    rows, tally, _ = split(given, tmp_path)
    reads = policy_tokenizer(given)
    cut = max(rows, key=lambda p: len(p.messages[0]["content"]))
    text = cut.messages[0]["content"]
    assert (len(rows), tally.dropped, tally.cut) == (61, {}, 1)
    assert LONG.endswith(text)
    assert cut.id == problem_id(cut.messages)
    free = tiny.CONTEXT - 48
    assert free - 6 < len(prompt_token_ids(reads.tokenizer, [{"role": "user", "content": text}])) <= free
    preflight.check_problems(given, OnDrift.REFUSE)


def test_prompts_that_are_the_same_once_they_are_cut_are_one(tmp_path: Path) -> None:
    texts = [f"Story {n}. {LONG}" for n in range(3)]
    given = config(tmp_path, long_prompts="cut", texts=texts)
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": f"Story 9. {LONG}", "answer": "5"}))
    (tmp_path / "problems.jsonl").open("a").write(json.dumps({"question": "1 + 1?", "answer": "2"}))
    rows, tally, found = split(given, tmp_path)
    assert [p.messages[0]["content"] for p in rows] == ["1 + 1?"]
    assert (tally.cut, found.dropped) == (4, {"train_also_in_held_out": 3})


def test_what_the_loop_puts_before_a_prompt_is_never_cut(tmp_path: Path) -> None:
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"question": "{{name}} has 1 pen. How many?", "answer": "#### 1"}))
    told = {"few_shot": shots, "system": "Be brief.", "placeholders": {"name": "Kim"}}
    rows, tally, _ = split(config(tmp_path, long_prompts="cut", **told), tmp_path)
    assert tally.cut == 1
    assert {tuple(turn["content"] for turn in p.messages[:3]) for p in rows} == {
        ("Be brief.", "Kim has 1 pen. How many?", "#### 1")
    }


@pytest.mark.parametrize(("pack_to", "limit"), [(None, tiny.CONTEXT), (128, 128)])
def test_where_gold_answers_are_trained_on_each_takes_the_room_it_needs(
    tmp_path: Path, pack_to: int | None, limit: int
) -> None:
    given = config(tmp_path, SFT, long_prompts="cut", train={"pack_to": pack_to, "adapter": None})
    rows, _, _ = split(given, tmp_path)
    tokenizer = policy_tokenizer(given).tokenizer
    lengths = [
        len(prompt_token_ids(tokenizer, p.messages)) + len(completion_token_ids(tokenizer, p.response or ""))
        for p in rows
    ]
    assert limit - 6 < max(lengths) <= limit


def test_the_settings_change_with_what_the_room_depends_on(tmp_path: Path) -> None:
    found = [
        length_settings(config(tmp_path, long_prompts="drop", **other))
        for other in ({}, {"generate": {"max_tokens": 49}}, {"engine": {"max_model_len": 200}}, {"template": "chatml"})
    ]
    assert all(found.count(settings) == 1 for settings in found)
    assert length_settings(config(tmp_path, long_prompts="drop")) == found[0]


def test_planning_fetches_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.datasets.prompt_length.model_tokenizer", lambda *_: pytest.fail("a model was fetched"))
    given = config(tmp_path, long_prompts="cut", model="nobody/nothing")
    assert length_settings(given)["model"] == "nobody/nothing"
