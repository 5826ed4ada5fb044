"""The best of n answers by one reward, and what they are worth by another."""

from itertools import combinations
from math import log
from random import Random
from statistics import mean

import pytest

from data.overoptimization import best_of


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    rng = Random(0)
    proxies = [[rng.random() for _ in range(8)] for _ in range(5)]
    golds = [[float(rng.random() < 0.5) for _ in range(8)] for _ in range(5)]
    found = best_of(proxies, golds)
    assert [one.n for one in found] == [1, 2, 4, 8]
    for one in found:
        chosen = [
            [max(subset) for subset in combinations(zip(proxy, gold, strict=True), one.n)]
            for proxy, gold in zip(proxies, golds, strict=True)
        ]
        assert one.proxy == pytest.approx(mean(mean(best for best, _ in of_it) for of_it in chosen))
        assert one.gold == pytest.approx(mean(mean(worth for _, worth in of_it) for of_it in chosen))
        assert one.kl == pytest.approx(log(one.n) - (one.n - 1) / one.n)


def test_of_equal_answers_none_is_chosen_for_being_right() -> None:
    (alone, of_two) = best_of([[1.0, 1.0]], [[0.0, 1.0]])
    assert alone.gold == of_two.gold == 0.5


@pytest.mark.parametrize("proxies", [[], [[]]])
def test_without_answers_there_is_nothing(proxies: list[list[float]]) -> None:
    assert best_of(proxies, proxies) == []
