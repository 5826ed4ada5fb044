"""A reward that is optimized, the proxy, beside the one that is meant, gold (arXiv 2210.10760).

A policy that is pushed on along the proxy gains in both at first. Then gold turns, while the proxy still rises.
"""

from collections.abc import Sequence
from math import comb, log
from statistics import mean

from pydantic import BaseModel, ConfigDict


class BestOf(BaseModel):
    """What the best of `n` of the base's answers, by the proxy, are worth.

    Attributes:
        kl: nats per answer by which this policy differs from the base.
        proxy, gold: means over problems.
    """

    model_config = ConfigDict(frozen=True)
    n: int
    kl: float
    proxy: float
    gold: float


def best_of(proxies: Sequence[Sequence[float]], golds: Sequence[Sequence[float]]) -> list[BestOf]:
    """The best of 1, 2, 4, … of each problem's answers, up to as many as every problem has.

    Args:
        proxies, golds: by problem, one value for each answer.
    """
    most, size, found = min(map(len, proxies), default=0), 1, []
    while size <= most:
        worths = [_mean_of_best(*of_problem, size) for of_problem in zip(proxies, golds, strict=True)]
        proxy, gold = (sum(values) / len(worths) for values in zip(*worths, strict=True))
        found.append(BestOf(n=size, kl=log(size) - (size - 1) / size, proxy=proxy, gold=gold))
        size *= 2
    return found


def _mean_of_best(proxies: Sequence[float], golds: Sequence[float], size: int) -> tuple[float, float]:
    """Mean over all subsets of this size of the answer with the highest proxy (arXiv 2112.09332, appendix I)."""
    even = {proxy: mean(g for p, g in zip(proxies, golds, strict=True) if p == proxy) for proxy in proxies}
    ordered = sorted((proxy, even[proxy]) for proxy in proxies)  # of equal answers any may be chosen
    subsets = comb(len(ordered), size)
    shares = [comb(below, size - 1) / subsets for below in range(len(ordered))]
    proxy, gold = (sum(map(float.__mul__, shares, values)) for values in zip(*ordered, strict=True))
    return proxy, gold
