"""Several rewards as one: sums, thresholds, gates, lengths, and parts that could not tell."""

import pytest

from data.combining import Combination, Part, combine
from data.rows import Sample, Score
from data.scoring import Tally, combine_scores

RIGHT, WRONG = Score(1.0, "correct", "yes", "5"), Score(0.0, "wrong", "no", "6")
ERROR, TIMEOUT = Score(None, "error", "down"), Score(None, "timeout", "slow")


def liked(value: float) -> Score:
    return Score(value, "correct" if value >= 4 else "wrong", "points")


@pytest.mark.parametrize(
    ("parts", "scores", "value", "verdict"),
    [
        ({"a": Part()}, {"a": RIGHT}, 1.0, "correct"),
        ({"a": Part(), "b": Part(0.5)}, {"a": RIGHT, "b": liked(3)}, 2.5, "correct"),
        ({"a": Part(), "b": Part(-0.5)}, {"a": RIGHT, "b": liked(1)}, 0.5, "wrong"),
        ({"a": Part(), "b": Part(0.5, at_least=3)}, {"a": RIGHT, "b": liked(3)}, 1.5, "correct"),
        ({"a": Part(), "b": Part(0.5, at_least=3)}, {"a": WRONG, "b": liked(2)}, 0.0, "wrong"),
        ({"a": Part(gate=True), "b": Part(0.5)}, {"a": WRONG, "b": liked(5)}, 0.0, "wrong"),
        ({"a": Part(gate=True), "b": Part(0.5)}, {"a": RIGHT, "b": liked(0)}, 1.0, "correct"),
        ({"a": Part(), "b": Part(0.0, at_least=2, gate=True)}, {"a": RIGHT, "b": liked(1)}, 0.0, "wrong"),
        ({"a": Part(gate=True), "b": Part()}, {"a": WRONG, "b": ERROR}, None, "error"),
        ({"a": Part(), "b": Part()}, {"a": TIMEOUT, "b": RIGHT}, None, "timeout"),
        ({"a": Part(), "b": Part()}, {"a": TIMEOUT, "b": ERROR}, None, "error"),
    ],
)
def test_parts_make_a_whole(
    parts: dict[str, Part], scores: dict[str, Score], value: float | None, verdict: str
) -> None:
    whole = combine(scores, 10, Combination(parts))
    assert (whole.value, whole.verdict) == (value, verdict)
    assert [part["name"] for part in whole.parts] == list(scores)
    assert whole.explanation.count(": ") == len(scores)


@pytest.mark.parametrize(("tokens", "value"), [(0, 1.0), (10, 1.0), (11, 0.75), (14, 0.0), (20, -1.5)])
def test_tokens_beyond_the_free_ones_cost(tokens: int, value: float) -> None:
    combination = Combination({"a": Part()}, passes_at=0.5, free_tokens=10, per_token=0.25)
    whole = combine({"a": RIGHT}, tokens, combination)
    assert (whole.value, whole.verdict) == (value, "correct" if value >= 0.5 else "wrong")


def test_scores_of_other_samples_are_refused_and_truncated_ones_are_wrong() -> None:
    samples = [Sample("p", i, "5", [1], "stop" if i else "length", "policy", 0, "s") for i in range(2)]
    scores = [Score(1.0, "correct", "", "5", "p", i) for i in range(2)]
    tally = Tally()
    combination = Combination({"a": Part()})
    whole = list(combine_scores(samples, {"a": scores}, combination, "a@1", tally))
    assert [(s.value, s.verdict, s.index, s.grader) for s in whole] == [
        (0.0, "wrong", 0, "a@1"),
        (1.0, "correct", 1, "a@1"),
    ]
    assert (tally.verdicts, tally.truncated) == ({"wrong": 1, "correct": 1}, 1)
    with pytest.raises(ValueError, match="Sample 0 of problem p got the score of another one"):
        list(combine_scores(samples, {"a": scores[::-1]}, combination, "a@1", Tally()))
