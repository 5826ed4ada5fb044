"""Splits are disjoint and stable, mixtures keep their proportions, and no problem is lost without a count."""

import json
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.prepare.overlap import Rules
from data.prepare.problems import split_of
from data.prepare.splits import MixtureError, Splitting, quotas, write_splits
from data.rows import SPLITS, Problem, problem_id
from data.storage import read_rows
from tasks.datasets.problems import DATA, OverlapConfig, ProblemSource, prepare_problems
from tasks.stage.run import Run
from tests.unit.reading import NO_RULES, load_problems

pytestmark = pytest.mark.slow

TALE = "A farmer from a village by the sea has many sheep and sells some of them at the market each week"
SHORT = st.text(st.sampled_from("ab \u200bÀÉ１你"), min_size=1, max_size=4)

# Short ones that are written differently, and long ones of which many say nearly the same.
TEXT = SHORT | st.builds("{}{} {}".format, st.sampled_from(["", "Tell me: "]), st.just(TALE), SHORT)


def problem(text: str, source: str = "a", split: str | None = None) -> Problem:
    messages = [{"role": "user", "content": text}]
    identity = problem_id(messages)
    return Problem(identity, messages, "1", None, source, split or split_of(identity))


def split(
    problems: list[Problem],
    held_out: list[Problem] | None = None,
    rules: Rules = NO_RULES,
    limits: dict[str, int | None] | None = None,
    weights: dict[str, float] | None = None,
    seed: int = 0,
) -> tuple[dict[str, list[Problem]], Splitting]:
    with TemporaryDirectory() as folder:
        found = write_splits(
            problems, held_out or [], Path(folder), rules, limits or {}, weights or {}, seed, lambda p: p
        )
        written = {name for name, counts in found.sources.items() if counts} | ({"held_out"} if held_out else set())
        assert {path.name for path in Path(folder).iterdir()} == {f"{name}.parquet" for name in written}
        files = {name: Path(folder) / f"{name}.parquet" for name in SPLITS}
        return {name: list(read_rows(Problem, file)) if file.exists() else [] for name, file in files.items()}, found


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXT, st.sampled_from([None, *SPLITS])), max_size=30), st.lists(TEXT, max_size=3))
def test_splits_are_disjoint_and_every_row_is_kept_or_counted(
    rows: list[tuple[str, str | None]], held_out: list[str]
) -> None:
    problems = [problem(text, split=name) for text, name in rows]
    rules = Rules(near_duplicates=0.8, contamination=0.5)
    splits, found = split(problems, [problem(text) for text in held_out], rules, {"train": 5})
    event(f"left out for overlaps: {found.dropped['contaminated'] > 0}, {found.dropped['near_duplicate'] > 0}")
    kept = [p.id for rows_ in splits.values() for p in rows_]
    assert len(kept) == len(set(kept))
    assert len(kept) + found.dropped.total() == len(problems)
    assert not {problem(text).id for text in held_out} & {p.id for p in splits["train"]}
    assert {name: len(rows_) for name, rows_ in splits.items()} == {n: c.total() for n, c in found.sources.items()}


@settings(max_examples=30, deadline=None)
@given(st.lists(TEXT, max_size=20), st.lists(TEXT, max_size=20))
def test_the_split_of_a_prompt_stays_when_rows_are_added(few: list[str], more: list[str]) -> None:
    def splits(texts: list[str]) -> dict[str, str]:
        return {p.id: name for name, rows in split([problem(text) for text in texts])[0].items() for p in rows}

    assert splits(few).items() <= splits([*more, *few]).items()


def test_what_was_split_once_is_split_alike_again() -> None:
    rng = random.Random(0)
    problems = [problem(" ".join(f"w{rng.randrange(1000)}" for _ in range(30))) for n in range(300)]
    once, _ = split(problems, rules=Rules(0.8, 0.5))
    again, found = split([p for rows in once.values() for p in rows], rules=Rules(0.8, 0.5))
    assert again == once
    assert not found.dropped


@pytest.mark.parametrize(
    ("counts", "weights", "limit", "expected"),
    [
        ({"a": 100, "b": 100}, {"a": 1, "b": 1}, None, {"a": 100, "b": 100}),
        ({"a": 100, "b": 100}, {"a": 1, "b": 0.5}, None, {"a": 100, "b": 50}),
        ({"a": 100, "b": 10}, {"a": 1, "b": 0.5}, None, {"a": 20, "b": 10}),
        ({"a": 100, "b": 10}, {"a": 1, "b": 0.5}, 15, {"a": 10, "b": 5}),
        ({"a": 100, "b": 10}, {"a": 1, "b": 0.5}, 1000, {"a": 20, "b": 10}),
        ({"a": 30, "b": 10, "c": 7}, {"a": 3, "b": 1, "c": 0.1}, None, {"a": 30, "b": 10, "c": 1}),
        ({"a": 7, "b": 1, "c": 9}, {"a": 1, "b": 1}, None, {"a": 1, "b": 1}),
    ],
)
def test_quotas_keep_the_proportions_and_take_nothing_twice(
    counts: dict[str, int], weights: dict[str, float], limit: int | None, expected: dict[str, int]
) -> None:
    assert quotas(counts, weights, limit) == expected


@pytest.mark.parametrize(
    ("counts", "weights", "limit"),
    [
        ({"a": 100}, {"a": 1, "b": 1}, None),
        ({"a": 1, "b": 100}, {"a": 3, "b": 1}, None),
        ({"a": 9, "b": 9}, {"a": 1, "b": 1}, 1),
    ],
)
def test_a_mixture_that_would_lose_a_source_is_refused(
    counts: dict[str, int], weights: dict[str, float], limit: int | None
) -> None:
    with pytest.raises(MixtureError, match=r"No training problem can be drawn from .*b.* There are a: .* at weight"):
        quotas(counts, weights, limit)


def test_a_mixture_is_drawn_by_weight_and_alike_for_the_same_seed() -> None:
    problems = [problem(f"{name}{n}", name, "train") for name in "ab" for n in range(100)]
    weights = {"a": 1.0, "b": 0.25}
    splits, found = split(problems, weights=weights, seed=1)
    assert found.sources["train"] == {"a": 100, "b": 25}
    assert found.dropped == {"not_drawn": 75}
    assert split(problems, weights=weights, seed=1)[0] == splits
    assert split(problems, weights=weights, seed=2)[0] != splits
    limited, found = split(problems, weights=weights, limits={"train": 50})
    assert found.sources["train"] == {"a": 40, "b": 10}
    assert [p.source for p in limited["train"]] == ["a"] * 40 + ["b"] * 10


def test_each_of_a_source_is_drawn_as_often_as_any_other() -> None:
    problems = [problem(f"{name}{n}", name, "train") for name in "ab" for n in range(10)]
    drawn = Counter(
        p.messages[0]["content"]
        for seed in range(100)
        for p in split(problems, weights={"a": 1.0, "b": 0.3}, seed=seed)[0]["train"]
        if p.source == "b"
    )
    assert set(drawn) == {f"b{n}" for n in range(10)}
    assert max(abs(count - 30) for count in drawn.values()) < 4 * (100 * 0.3 * 0.7) ** 0.5


def write(path: Path, texts: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in texts))
    return path


def numbered(name: str, count: int) -> list[str]:
    return [f"What is {name} times {n}?" for n in range(count)]


def test_sources_of_a_mixture_are_told_apart_also_if_their_files_have_one_name(tmp_path: Path) -> None:
    one, two = (
        write(tmp_path / "a" / "p.jsonl", numbered("x", 200)),
        write(tmp_path / "b" / "p.jsonl", numbered("y", 200)),
    )
    source = ProblemSource(problems=one, mixture={str(two): 0.5})
    loaded = load_problems(source, 0)
    counts = Counter(p.source for p in loaded.splits["train"])
    assert counts[str(two)] == counts[str(one)] // 2
    assert loaded.dropped["not_drawn"] + sum(map(len, loaded.splits.values())) == loaded.rows == 400


def test_a_mixture_needs_a_first_data_set() -> None:
    with pytest.raises(ValidationError, match=r"mixture needs .* Set problems"):
        ProblemSource(mixture={"b.jsonl": 1.0})
    with pytest.raises(ValidationError, match="greater than 0"):
        ProblemSource(problems=Path("a.jsonl"), mixture={"b.jsonl": 0})


def test_the_stage_leaves_out_what_repeats_held_out_prompts_and_shows_it(tmp_path: Path) -> None:
    held = f"{TALE}. How many does she have?"
    texts = [*numbered("x", 80), f"{TALE}. How many does she have now?", f"Tell me: {TALE}. How many are left to him?"]
    held_out = write(tmp_path / "bench.jsonl", [held])
    files = {
        "problems": write(tmp_path / "p.jsonl", texts),
        "validation": write(tmp_path / "v.jsonl", numbered("v", 3)),
        "test": write(tmp_path / "t.jsonl", numbered("t", 3)),
    }
    source = ProblemSource(**files, overlap=OverlapConfig(held_out=(held_out,)))
    result = prepare_problems(Run(tmp_path / "run"), source)
    assert result.finished is not None
    assert result.finished.manifest.dropped == {"contaminated": 2}
    noticed = json.loads((result.path / DATA).read_text())
    shown = noticed.pop("repeated")
    assert [(Path(name).name, count) for name, count in noticed.pop("files").items()] == [
        ("p.jsonl", 82),
        ("v.jsonl", 3),
        ("t.jsonl", 3),
    ]
    assert (noticed.pop("file_splits"), noticed.pop("skipped_files")) == ({}, {})
    assert noticed == {"hidden_characters": 0, "cut_prompts": 0, "contaminated": 2, "noticed": {}}
    assert result.finished.manifest.rows_in == 88
    assert {(s["reason"], s["repeats"], s["source"]) for s in shown} == {("contaminated", held, "bench.jsonl")}
    lenient = ProblemSource(**files, overlap=OverlapConfig(held_out=(held_out,), contaminated="keep"))
    kept = prepare_problems(Run(tmp_path / "kept"), lenient)
    assert kept.finished is not None
    assert not kept.finished.manifest.dropped


def test_overlaps_of_the_embedded_problems_are_not_looked_for(tmp_path: Path) -> None:
    result = prepare_problems(Run(tmp_path / "run"), ProblemSource())
    assert result.finished is not None
    assert not result.finished.manifest.dropped
