"""Comparing a finished loop's best iteration with the registry's champion, on rows that no decision has used."""

from collections.abc import Mapping, Sequence

from data.measures import LOSS, WIN_RATE, Measure, difference, shared
from data.metrics import Interval
from data.rows import MeasuredRow
from tasks.loop.measuring import ANSWERS, TEST, Measuring
from tasks.rollouts.measured import load_measured
from tasks.stage.iteration import Iteration
from tasks.stage.run import Result
from tasks.tracking.champion import Gate, policy_of, refusal
from tasks.tracking.registry import Version

NOT_THE_SAME = {
    LOSS: "different gold answers of the test set fit the two policies' contexts, so their losses are of different "
    "texts. Choose accuracy or a win rate as the run's measure",
    WIN_RATE: "for no prompt of the test set did the judge give readable replies for both policies. Choose another "
    "judge",
}


def measure_gate(
    measuring: Measuring,
    iterations: Sequence[Iteration],
    best: int,
    final: tuple[Mapping[str, Result], Mapping[str, Result]],
) -> Gate | None:
    """Compare the best iteration with the champion by the deciding measure; with the base if there is no champion.

    Args:
        final: the stages that measured the base and the best iteration at the end.

    Returns:
        None if there is neither a champion nor an iteration better than the base.
    """
    run, measure = measuring.run, measuring.decides
    if run.recorder is None:
        return None
    with run.recorder.tracking.reaching():
        champion = run.recorder.tracking.registry.champion(measuring.config.registered)
    if champion is None and best == 0:
        return None
    if measure is None:
        return Gate(champion, None, 0, refused="the loop has no deciding measure")
    known = {iteration.policy.artifact("policy").digest for iteration in (iterations[0], iterations[best])}
    if champion is None or champion.digest in known:
        return _gate(champion, measure, final, measuring.config.seed)
    return _against_champion(measuring, measure, champion, iterations[best], final[1])


def _against_champion(
    measuring: Measuring, measure: Measure, champion: Version, best: Iteration, ours: Mapping[str, Result]
) -> Gate:
    """Measure the champion of an earlier run, and compare the two."""
    checkpoint, at = policy_of(champion), measuring.run.place(f"final/champion-{champion.digest[:8]}")
    if checkpoint is None:
        return Gate(champion, None, 0, measure)
    if why := refusal(measure, best.policy.artifact("policy").path, champion):
        return Gate(champion, None, 0, measure, why)
    if measure is WIN_RATE:
        answers = ours.get(ANSWERS) or ours["evaluate"]
        found: tuple[Mapping[str, Result], Mapping[str, Result]] = {}, measuring.over(at, answers, checkpoint)
    else:
        found = measuring.measure(at, checkpoint, (TEST, "transfer"), {}, {}), ours
    return _gate(champion, measure, found, measuring.config.seed)


def _gate(
    champion: Version | None, measure: Measure, final: tuple[Mapping[str, Result], Mapping[str, Result]], seed: int
) -> Gate:
    theirs, ours = (load_measured(stages.values()) for stages in final)
    found = ours.get(TEST, measure.name)
    if found is None:
        why = f"{measure.label} was not measured on a test set"
        return Gate(champion, None, 0, measure, refused=why)
    if measure.even is not None and theirs.get(TEST, measure.name) is None:  # it is measured against the other policy
        value, even = found.value, measure.even
        over = Interval(value=value.value - even, low=value.low - even, high=value.high - even)
        return Gate(champion, over, found.rows, measure)
    mine = ours.rows(TEST, measure.name)
    others = theirs.rows(TEST, measure.name) if theirs.get(TEST, measure.name) is not None else []
    if measure is WIN_RATE:
        mine, others = shared(mine, others)
    if not mine or _weights(mine) != _weights(others):
        why = NOT_THE_SAME.get(measure, "the two were not measured on the same rows of the test set")
        return Gate(champion, None, 0, measure, refused=why)
    return Gate(champion, difference(mine, others, seed), len(mine), measure)


def _weights(rows: Sequence[MeasuredRow]) -> dict[tuple[str, int], float]:
    return {(row.problem_id, row.index): row.weight for row in rows}
