"""Own answers that go wrong in form, against counts by hand."""

import pytest

from data.degeneration import degeneration, repeated_share
from data.rows import Sample


def sample(problem: str, token_ids: list[int], finish: str = "stop") -> Sample:
    return Sample(problem, 0, "", token_ids, finish, "", 0, "")


@pytest.mark.parametrize(
    ("token_ids", "share"),
    [
        ([1, 2, 3], None),
        ([1, 2, 3, 4], 0.0),
        ([1, 1, 1, 1, 1], 1 / 2),  # 1111 twice
        ([1, 2, 3, 4, 1, 2, 3, 4], 1 / 5),  # 1234 twice among five
        ([1, 2] * 4, 3 / 5),  # of 1212 and 2121, five in all
    ],
)
def test_the_share_of_4_grams_that_repeat_an_earlier_one(token_ids, share):
    assert repeated_share(token_ids) == (None if share is None else pytest.approx(share))


def test_length_repetition_and_end_of_own_answers():
    samples = [
        sample("a", [1, 2] * 4, "length"),
        sample("a", [1, 2, 3, 4]),
        sample("b", [1, 2, 3]),  # too short to have a 4-gram: counts for lengths only
        sample("without gold", [1] * 50),
    ]
    found = degeneration(samples, {"a": 4, "b": 7, "c": 100})
    assert (found.samples, found.mean_tokens, found.gold_tokens) == (3, 5, 5)
    assert found.length_ratio == 1
    assert found.repeated == pytest.approx((3 / 5 + 0) / 2)
    assert found.ended == pytest.approx(2 / 3)


def test_no_answers_are_no_figures():
    with pytest.raises(ValueError, match="no own answers"):
        degeneration([sample("a", [1])], {})
