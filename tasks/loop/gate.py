"""What a finished loop's best iteration comes to against the registry's champion, on rows that no decision has seen."""

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
    LOSS: "the two policies' contexts hold different gold answers of the test set, so their losses are of different "
    "texts. Choose accuracy or a win rate as the run's measure",
    WIN_RATE: "the judge gave readable replies to no prompt of the test set for both policies. Choose another judge",
}


def measure_gate(
    measuring: Measuring,
    iterations: Sequence[Iteration],
    best: int,
    final: tuple[Mapping[str, Result], Mapping[str, Result]],
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
        champion = run.recorder.tracking.registry.champion(measuring.config.registered)
    if champion is None and best == 0:
        return None
    if measure is None:
        return Gate(champion, None, 0, refused="the loop decides by no measure")
    known = {iteration.policy.artifact("policy").digest for iteration in (iterations[0], iterations[best])}
    if champion is None or champion.digest in known:
        return _gate(champion, measure, final, measuring.config.seed)
    return _against_champion(measuring, measure, champion, iterations[best], final[1])


def _against_champion(
    measuring: Measuring, measure: Measure, champion: Version, best: Iteration, ours: Mapping[str, Result]
) -> Gate:
    """Measure the champion of an earlier run, and set the two side by side."""
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
        why = f"{measure.label} was not measured on a set for the final test"
        return Gate(champion, None, 0, measure, refused=why)
    if measure.even is not None and theirs.get(TEST, measure.name) is None:  # it is against the other policy itself
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
