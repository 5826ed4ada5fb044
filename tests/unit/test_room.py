"""A prompt that leaves no room for an answer is refused, dropped or cut, as configured, and counted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.overlap import Rules
from data.render import PromptTooLongError, completion_token_ids, prompt_token_ids
from data.rows import Problem
from data.storage import read_rows
from flows.rest_em import RestEM
from flows.sft import SFT
from models import tiny
from tasks import preflight
from tasks.problems import split_problems
from tasks.room import fit_prompts, tokenizer_and_context

LONG = "Ada has 5 apples. " * (tiny.CONTEXT // 4) + "How many apples are there now?"


@pytest.fixture(autouse=True)
def _checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_checked", set())


def config(folder: Path, loop: type[Any] = RestEM, **settings: Any) -> Any:
    rows = [{"question": f"Ben has {n} pens. How many?", "answer": f"#### {n}"} for n in range(60)]
    path = folder / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"question": LONG, "answer": "#### 5"}]))
    held_out = {name: folder / f"{name}.jsonl" for name in ("validation", "test")}
    for number, file in enumerate(held_out.values()):
        file.write_text(json.dumps({"question": f"Kim has {number} nuts. How many?", "answer": str(number)}))
    return loop.model_validate({"problems": path, "generate": {"max_tokens": 48}, **held_out, **settings})


def split(config: Any, folder: Path) -> tuple[list[Problem], Counter[str], Any]:
    fit, settings = fit_prompts(config)
    _, found = split_problems(config, 0, folder / "splits", Rules(), fit)
    return list(read_rows(Problem, folder / "splits" / "train.parquet")), found.dropped, settings


def test_by_default_the_run_is_refused(tmp_path: Path) -> None:
    given = config(tmp_path)
    rows, dropped, settings = split(given, tmp_path)
    assert (len(rows), dropped, settings) == (61, {}, {})
    with pytest.raises(PromptTooLongError, match=r"does not fit into the context"):
        preflight.check_problems(given)


def test_it_is_dropped_and_counted(tmp_path: Path) -> None:
    given = config(tmp_path, long_prompts="drop")
    rows, dropped, _ = split(given, tmp_path)
    assert (len(rows), dropped) == (60, {"prompt_too_long": 1})
    preflight.check_problems(given)


def test_it_is_cut_from_the_left_until_it_fits(tmp_path: Path) -> None:
    given = config(tmp_path, long_prompts="cut")
    rows, dropped, settings = split(given, tmp_path)
    tokenizer, context = tokenizer_and_context(given)
    cut = max(rows, key=lambda p: len(p.messages[0]["content"])).messages[0]["content"]
    assert (len(rows), dropped) == (61, {})
    assert LONG.endswith(cut)
    room = context - 48
    assert room - 6 < len(prompt_token_ids(tokenizer, [{"role": "user", "content": cut}])) <= room
    assert settings["context"] == context == tiny.CONTEXT
    preflight.check_problems(given)


def test_where_gold_answers_are_trained_on_each_takes_the_room_it_needs(tmp_path: Path) -> None:
    given = config(tmp_path, SFT, long_prompts="cut")
    rows, _, _ = split(given, tmp_path)
    tokenizer, context = tokenizer_and_context(given)
    lengths = [
        len(prompt_token_ids(tokenizer, p.messages)) + len(completion_token_ids(tokenizer, p.response or ""))
        for p in rows
    ]
    assert context - 6 < max(lengths) <= context


def test_the_settings_change_with_what_the_room_depends_on(tmp_path: Path) -> None:
    found = [
        fit_prompts(config(tmp_path, long_prompts="drop", **other))[1]
        for other in ({}, {"generate": {"max_tokens": 49}}, {"engine": {"max_model_len": 200}}, {"template": "chatml"})
    ]
    assert all(found.count(settings) == 1 for settings in found)
    assert fit_prompts(config(tmp_path, long_prompts="drop"))[1] == found[0]
