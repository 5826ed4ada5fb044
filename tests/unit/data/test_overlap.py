"""Near-duplicates and contamination are found as their definitions say, and shown."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.prepare.overlap import Overlaps, Rules
from data.prepare.similar import COMMON, HeldOutRuns, NearDuplicates, Overlap, Prompt, prompt_of
from data.rows import Problem, problem_id
from data.storage import write_rows

VOCABULARY = [f"w{n}" for n in range(1000)]


def runs(prompt: list[str], n: int = 5) -> set[tuple[str, ...]]:
    return {tuple(prompt[i : i + n]) for i in range(len(prompt) - n + 1)}


def changed(prompt: list[str], places: int, rng: random.Random) -> list[str]:
    other = list(prompt)
    for place in rng.sample(range(len(prompt)), places):
        other[place] = f"changed{rng.random()}"
    return other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is 3 + 4?", "what is 3 + 4 ?"),
        ("What is 3 - 4?", "what is 3 - 4 ?"),
        ("“Hello,”  SHE said…", "“ hello , ” she said . . ."),
        ("3只猫。", "3 只 猫 。"),
        ("a\u200bb\tc", "ab c"),
        ("की घड़ी", "की घड़ी"),
    ],
)
def test_the_words_of_a_prompt(text: str, expected: str) -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    assert prompt_of(prompt) == Prompt(expected.split(), "Be brief.")


def test_similarity_is_that_of_the_sets_of_five_words(tmp_path: Path) -> None:
    rng = random.Random(1)
    index = NearDuplicates(tmp_path / "near.sqlite", 0.01)
    for places in (0, 1, 3, 8):
        prompt = rng.choices(VOCABULARY, k=120)
        assert index.add(f"first-{places}", Prompt(prompt)) is None
        other = changed(prompt, places, rng)
        found = index.add("second", Prompt(other), keep=False)
        exact = len(runs(prompt) & runs(other)) / len(runs(prompt) | runs(other))
        assert found is not None
        assert found.name == f"first-{places}"
        assert found.share == pytest.approx(exact, abs=0.13)  # three standard errors
    index.close()


def test_what_is_above_the_threshold_is_found_and_what_is_below_is_not(tmp_path: Path) -> None:
    rng = random.Random(2)
    index = NearDuplicates(tmp_path / "near.sqlite", 0.8)
    prompts = [rng.choices(VOCABULARY, k=150) for _ in range(200)]
    assert [index.add(str(n), Prompt(prompt)) for n, prompt in enumerate(prompts)] == [None] * 200
    near = [index.add("", Prompt(changed(prompt, 1, rng)), keep=False) for prompt in prompts]  # similarity 0.93
    assert [found.name if found else None for found in near] == [str(n) for n in range(200)]
    far = [index.add("", Prompt(changed(prompt, 12, rng)), keep=False) for prompt in prompts]  # about 0.5
    assert far == [None] * 200
    index.close()


def test_short_prompts_are_the_same_only_if_every_word_is(tmp_path: Path) -> None:
    index = NearDuplicates(tmp_path / "near.sqlite", 0.8)
    for text in ("1 + 1", "1 - 1", "1 + 2", "2 + 1", ""):
        assert index.add(text, Prompt(text.split())) is None
    assert index.add("again", Prompt(["1", "+", "1"])) == Overlap("1 + 1", 1.0)
    index.close()


def test_prompts_under_different_system_messages_differ(tmp_path: Path) -> None:
    index = NearDuplicates(tmp_path / "near.sqlite", 0.8)
    text = rng_words(60)
    assert index.add("brief", Prompt(text, "Be brief.")) is None
    assert index.add("kind", Prompt(text, "Be kind.")) is None
    assert index.add("again", Prompt(text, "Be kind.")) == Overlap("kind", 1.0)
    index.close()


def test_near_duplicates_are_found_among_many_of_one_form(tmp_path: Path) -> None:
    rng = random.Random(4)
    form = rng.choices(VOCABULARY, k=60)
    index = NearDuplicates(tmp_path / "near.sqlite", 0.8)
    prompts = [[*form, *rng.choices(VOCABULARY, k=40)] for _ in range(1500)]
    kept = [n for n, prompt in enumerate(prompts) if index.add(str(n), Prompt(prompt)) is None]
    assert len(kept) > 1400
    found = [index.add("", Prompt([*prompts[n][:-1], "another"]), keep=False) for n in kept[-100:]]
    assert [overlap.name if overlap else None for overlap in found] == [str(n) for n in kept[-100:]]
    index.close()


@pytest.mark.parametrize("threshold", [0.01, 0.5, 0.95, 1.0])
def test_every_threshold_can_be_had(tmp_path: Path, threshold: float) -> None:
    index = NearDuplicates(tmp_path / "near.sqlite", threshold)
    text = rng_words(50)
    assert index.add("one", Prompt(text)) is None
    assert index.add("again", Prompt(text)) == Overlap("one", 1.0)
    index.close()


def rng_words(count: int) -> list[str]:
    return random.Random(5).choices(VOCABULARY, k=count)


def held_out(folder: Path, *prompts: tuple[str, list[str]], share: float = 0.5) -> HeldOutRuns:
    return HeldOutRuns(folder / "held.sqlite", ((name, Prompt(words)) for name, words in prompts), share)


def test_a_prompt_that_covers_half_of_a_held_out_one_repeats_it(tmp_path: Path) -> None:
    held = [f"h{n}" for n in range(40)]
    index = held_out(tmp_path, ("other", [f"o{n}" for n in range(40)]), ("held", held))
    assert index.repeated_by(Prompt(["a", "b", *held[10:30], "c"])) == Overlap("held", 0.5)
    assert index.repeated_by(Prompt(["a", "b", *held[10:29], "c"])) is None
    assert index.repeated_by(Prompt([*held[:10], "x", *held[20:30], "y", *held[30:]])) == Overlap("held", 0.75)
    assert index.repeated_by(Prompt(held[:7] * 6)) is None, "runs of fewer than eight words do not count"
    assert index.repeated_by(Prompt([])) is None
    index.close()


def test_in_chinese_twice_as_many_characters_make_an_n_gram(tmp_path: Path) -> None:
    held = prompt_of([{"role": "user", "content": "为一篇关于发展自己的业务的博客文章创建一个引人注目的标题。"}]).words
    index = held_out(tmp_path, ("held", held))
    assert index.repeated_by(Prompt(["请", *held[:16]])) == Overlap("held", 16 / len(held))
    assert index.repeated_by(Prompt(["请", *held[:15]])) is None
    english = [f"word{n}" for n in range(60)]
    assert index.repeated_by(Prompt([*english, *held])) == Overlap("held", 1.0)
    index.close()


def test_a_held_out_prompt_of_fewer_than_eight_words_is_not_looked_for(tmp_path: Path) -> None:
    index = held_out(tmp_path, ("short", "go on".split()), ("empty", []))
    assert index.repeated_by(Prompt("please go on with what you said before".split())) is None
    index.close()


@pytest.mark.parametrize("held_out_prompts", [COMMON, COMMON + 1])
def test_what_many_held_out_prompts_share_does_not_count(tmp_path: Path, held_out_prompts: int) -> None:
    rng = random.Random(6)
    form = rng.choices(VOCABULARY, k=50)
    own = [[f"own{n}-{word}" for word in range(12)] for n in range(held_out_prompts)]
    index = held_out(tmp_path, *((str(n), [*form, *words]) for n, words in enumerate(own)))
    counts = held_out_prompts <= COMMON
    assert (index.repeated_by(Prompt([*form, "and", "something", "else"])) is not None) == counts
    repeated = index.repeated_by(Prompt(["well", *own[3], "then"]))
    # Of the twelve own words and the seven before them, with which they make runs of eight.
    assert repeated == (None if counts else Overlap("3", 12 / 19))
    index.close()


def problem(text: str, split: str = "train") -> Problem:
    messages = [{"role": "user", "content": text}]
    return Problem(problem_id(messages), messages, "1", None, "here.jsonl", split)


@pytest.mark.parametrize("keep", [False, True])
def test_what_is_left_out_is_counted_by_reason_and_shown_with_what_it_repeats(tmp_path: Path, keep: bool) -> None:
    rng = random.Random(3)
    held, long = (" ".join(rng.choices(VOCABULARY, k=60)) for _ in range(2))
    train = [problem(text) for text in (long, f"{long} indeed", f"{held} and more", "Something else?")]
    files = {"train": tmp_path / "train.parquet", "test": tmp_path / "test.parquet"}
    write_rows(Problem, files["train"], train)
    write_rows(Problem, files["test"], [problem(held, "test")])
    overlaps, dropped = Overlaps(Rules(0.8, 0.5, keep), tmp_path, files), Counter[str]()
    left_out = [overlaps.leave_out(p.id, p.messages, dropped) for p in train]
    assert left_out == [False, True, not keep, False]
    assert dropped == {"near_duplicate": 1} | ({} if keep else {"contaminated": 1})
    assert overlaps.contaminated == 1
    shown = {found.reason: (found.prompt, found.repeats, found.source) for found in overlaps.shown()}
    assert shown == {
        "near_duplicate": (f"{long} indeed", long, "here.jsonl"),
        "contaminated": (f"{held} and more", held, "here.jsonl"),
    }
    overlaps.close()


def test_prompts_that_repeat_held_out_ones_and_are_kept_are_still_compared_with_each_other(tmp_path: Path) -> None:
    held = " ".join(rng_words(60))
    files = {"train": tmp_path / "train.parquet", "test": tmp_path / "test.parquet"}
    train = [problem(f"{held} indeed"), problem(f"{held} indeed now")]
    write_rows(Problem, files["train"], train)
    write_rows(Problem, files["test"], [problem(held, "test")])
    overlaps, dropped = Overlaps(Rules(0.8, 0.5, keep_contaminated=True), tmp_path, files), Counter[str]()
    assert [overlaps.leave_out(p.id, p.messages, dropped) for p in train] == [False, True]
    assert (overlaps.contaminated, dropped) == (2, {"near_duplicate": 1})
    overlaps.close()


def test_a_short_prompt_that_is_held_out_is_found_without_looking_for_near_duplicates(tmp_path: Path) -> None:
    files = {"test": tmp_path / "test.parquet"}
    write_rows(Problem, files["test"], [problem("What is 3 + 4?", "test")])
    overlaps, dropped = Overlaps(Rules(contamination=0.5), tmp_path, files), Counter[str]()
    texts = ("what is  3 + 4?", "What is 3 - 4?")
    asked = [problem(text) for text in texts]
    assert [overlaps.leave_out(p.id, p.messages, dropped) for p in asked] == [True, False]
    overlaps.close()


def test_without_rules_nothing_is_left_out(tmp_path: Path) -> None:
    overlaps = Overlaps(Rules(), tmp_path, {})
    assert not any(overlaps.leave_out(str(n), problem("Hi?").messages, Counter()) for n in range(3))
    overlaps.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), max_size=12))
def test_what_was_kept_once_is_kept_again(tmp_path_factory: pytest.TempPathFactory, prompts: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("idempotent")

    def kept(of: list[list[str]], name: str) -> list[list[str]]:
        index = NearDuplicates(folder / name, 0.6)
        found = [prompt for prompt in of if index.add("", Prompt(prompt)) is None]
        index.close()
        return found

    once = kept(prompts, "once.sqlite")
    assert kept(once, "twice.sqlite") == once
