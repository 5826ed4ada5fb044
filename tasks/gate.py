"""What a finished loop's best iteration comes to against the registry's champion, on rows that no decision has seen."""

from collections.abc import Mapping, Sequence
from typing import Any

from data.measures import LOSS, WIN_RATE, Measure, difference
from data.metrics import Interval
from tasks.champion import Gate, policy_of, same_tokenizer
from tasks.measured import Measured, load_measured
from tasks.measuring import Measuring
from tasks.registry import Version
from tasks.run import Result

SET = "test"


def measure_gate(
    measuring: Measuring, iterations: Sequence[Any], best: int, final: tuple[Mapping[str, Result], Mapping[str, Result]]
) -> Gate | None:
    """The best iteration against the champion, by the measure that decides; where there is none, against the base.

    Args:
        final: what was measured at the end, of the base and of the best iteration.

    Returns:
        None where there is neither a champion nor an iteration that is better than the base.
    """
    run, measure = measuring.run, measuring.decides
    if run.recorder is None:
        return None
    with run.recorder.tracking.reaching():
        champion = run.recorder.tracking.registry.champion(measuring.config.registry)
    if champion is None and best == 0:
        return None
    if measure is None:
        return Gate(champion, None, 0, refused="the loop decides by no measure")
    known = {iteration.policy.artifact("policy").digest for iteration in (iterations[0], iterations[best])}
    if champion is None or champion.digest in known:
        return _gate(champion, measure, final, measuring.config.seed)
    return _against_champion(measuring, measure, champion, iterations[best], final[1])


def _against_champion(
    measuring: Measuring, measure: Measure, champion: Version, best: Any, ours: Mapping[str, Result]
) -> Gate:
    """Measure the champion of an earlier run, and set the two side by side."""
    checkpoint, policy = policy_of(champion), best.policy.artifact("policy")
    if not measure.across_runs:
        why = f"{measure.label} is measured against the base of its own run, and says nothing of another's policy"
        return Gate(champion, None, 0, measure, refused=why)
    if checkpoint is None:
        return Gate(champion, None, 0, measure)
    if measure is LOSS and not same_tokenizer(policy.path, checkpoint.path):
        return Gate(champion, None, 0, measure, refused="losses per token of two tokenizers cannot be compared")
    place = f"final/champion-{champion.digest[:8]}"
    if measure is WIN_RATE:
        return _gate(champion, measure, ({}, measuring.win_rate_over(place, policy, checkpoint)), measuring.config.seed)
    theirs = measuring.measure(place, checkpoint, (SET, "transfer"), {}, {})
    return _gate(champion, measure, (theirs, ours), measuring.config.seed)


def _gate(
    champion: Version | None, measure: Measure, final: tuple[Mapping[str, Result], Mapping[str, Result]], seed: int
) -> Gate:
    theirs, ours = (load_measured(stages.values()) for stages in final)
    found = ours.get(SET, measure.name)
    if found is None:
        why = f"{measure.label} was not measured on a set for the final test"
        return Gate(champion, None, 0, measure, refused=why)
    return Gate(champion, _difference(measure, ours, theirs, seed), found.rows, measure)


def _difference(measure: Measure, ours: Measured, theirs: Measured, seed: int) -> Interval:
    if theirs.get(SET, measure.name) is not None:
        return difference(ours.rows(SET, measure.name), theirs.rows(SET, measure.name), seed)
    found, even = ours.get(SET, measure.name), measure.even
    assert found is not None and even is not None  # it is measured against the other policy itself
    value = found.value
    return Interval(value=value.value - even, low=value.low - even, high=value.high - even)
