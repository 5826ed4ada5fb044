"""Gold over own answers: what is paired, what is dropped and why."""

from collections import Counter

import pytest

from data.pairing import pair_gold_over_own
from data.rows import Pair, Problem, Sample

EOS = 0


def render(text: str) -> list[int]:
    return [*map(ord, text), EOS]


def problem(gold: str | None, name: str = "p") -> Problem:
    return Problem(name, [{"role": "user", "content": "?"}], None, gold, "here.jsonl", "train")


def sample(text: str, index: int = 0, name: str = "p", reason: str = "stop") -> Sample:
    ids = [*map(ord, text), EOS] if reason == "stop" else [*map(ord, text)]
    return Sample(name, index, text, ids, reason, "opponent", 0, "")


def pairs(problems: list[Problem], samples: list[Sample], limit: int = 100) -> tuple[list[Pair], Counter[str]]:
    counts: Counter[str] = Counter()
    return list(pair_gold_over_own(problems, samples, render, limit, counts)), counts


@pytest.mark.parametrize(
    ("gold", "own", "reason"),
    [
        ("a b", "a b", "equal"),
        ("a  b\n", " a b", "equal"),
        ("a b", "", "empty"),
        ("a b", " \n", "empty"),
        ("", "a", "empty"),
        (None, "a", "empty"),
    ],
)
def test_pairs_without_signal_are_dropped_and_counted(gold, own, reason):
    found, counts = pairs([problem(gold)], [sample(own)])
    assert found == []
    assert counts == {"samples": 1, reason: 1}


def test_a_pair_says_where_each_side_came_from():
    found, counts = pairs([problem("right")], [sample("wrong")])
    assert [(p.chosen, p.rejected, p.chosen_source, p.rejected_source) for p in found] == [
        ("right", "wrong", "here.jsonl", "opponent")
    ]
    assert found[0].chosen_token_ids == render("right")
    assert found[0].rejected_token_ids == render("wrong")
    assert +counts == {"samples": 1, "kept": 1}


def test_the_same_own_answer_is_paired_once_per_problem():
    problems = [problem("x", "a"), problem("x", "b")]
    samples = [sample("y", 0, "a"), sample(" y", 1, "a"), sample("z", 2, "a"), sample("y", 0, "b")]
    found, counts = pairs(problems, samples)
    assert [(p.problem_id, p.index) for p in found] == [("a", 0), ("a", 2), ("b", 0)]
    assert counts["duplicate"] == 1


def test_a_truncated_own_answer_gets_no_false_eos_and_gold_is_cut_at_the_same_length():
    found, counts = pairs([problem("abcdef")], [sample("xyz", reason="length")], limit=3)
    assert found[0].rejected_token_ids == [*map(ord, "xyz")]
    assert found[0].chosen_token_ids == [*map(ord, "abc")]
    assert counts["gold cut"] == counts["own truncated"] == 1


def test_gold_that_just_fits_keeps_its_eos():
    found, counts = pairs([problem("ab")], [sample("x")], limit=3)
    assert found[0].chosen_token_ids == [*map(ord, "ab"), EOS]
    assert counts["gold cut"] == 0
