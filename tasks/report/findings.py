"""A run's results in sentences: for every measure, the gain or loss on held-out rows, the headline first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from data.measures import (
    ACCURACY,
    AGREEMENT,
    DISCRIMINATOR,
    LEFT_OUT,
    LOSS,
    MEASURES,
    OWN_MARGIN,
    OWN_PAIRS,
    OWN_PAIRS_RIGHT,
    PAIR_ACCURACY,
    PROXY,
    SAMPLED_ACCURACY,
    WIN_RATE,
    Estimated,
    Measure,
)
from data.metrics import Interval, SetMetrics
from tasks.report.content import IterationReport, Record, Report
from tasks.report.wording import (
    LEVEL,
    Direction,
    above,
    direction,
    percent,
    shown,
    shown_difference,
    shown_range,
    too_small,
    value_range,
)

CONTROLLED = "length_controlled"
NAMES = {
    ACCURACY.name: "{set} accuracy",
    SAMPLED_ACCURACY.name: "sampled {set} accuracy",
    LOSS.name: "the {set} loss per token of gold answers",
    WIN_RATE.name: "the {set} win rate against {rival}",
    PROXY.name: "the reward that it optimized, on {set},",
    AGREEMENT.name: "the judge's agreement with people, on {set},",
}
ITS_OWN = {
    OWN_PAIRS.name: "the policy prefers the answer that was judged the better one, more than it did before, "
    "{share}, on pairs that it did not learn.",
    OWN_MARGIN.name: "it prefers that answer more than it did before by {share}, on the same pairs.",
    OWN_PAIRS_RIGHT.name: "the verifier orders the pairs that it learned as they were judged {share}; a pair with "
    "two right or two wrong answers counts a half.",
}
ALONE = {PROXY.name: "It is measured on validation alone.", AGREEMENT.name: "It is measured on validation alone."}
ALONE |= dict.fromkeys(ITS_OWN, "")  # they say on what
RIVALS = {"base": "the base's answer", "previous": "the previous policy's answer", "gold": "the gold answer"}


class Finding(Record):
    """The run's result on one set by one measure, in words."""

    set_name: str
    measure: str
    direction: Direction
    sentence: str


@dataclass(frozen=True)
class _Found:
    """A result to describe. `base` is None if only the best policy was measured."""

    report: Report
    measure: Measure
    set_name: str
    base: Estimated | None
    best: Estimated

    @property
    def rows(self) -> str:
        return f"n = {self.best.rows:,}"

    @property
    def name(self) -> str:
        rival = RIVALS.get(self.report.rival or "", "another answer")
        return NAMES[self.measure.name].format(set=self.set_name, rival=rival)

    def said(self, towards: Direction, sentence: str, caution: str = "") -> Finding:
        parts = " ".join(part for part in (sentence, caution) if part)
        return Finding(set_name=self.set_name, measure=self.measure.name, direction=towards, sentence=parts)

    def value(self, value: float) -> str:
        return shown(self.measure, value) + " nats" * (self.measure.unit == "nats")


def findings(report: Report) -> list[Finding]:
    """Return a finding for every measure and held-out set: first the deciding measure, or the loss if none decided.

    A measure taken only on validation is reported on validation, and marked as such.
    """
    return [finding for name in _names(report) for finding in _of_measure(report, MEASURES[name])]


def headline(report: Report) -> str | None:
    """The first measure, if anything was measured."""
    return next(iter(_names(report)), None)


def estimated(metrics: SetMetrics) -> Estimated:
    """The greedy accuracy of verified answers as one measure among others."""
    return Estimated(value=metrics.greedy, rows=metrics.problems, against=metrics.against)


def at_equal_length(found: Estimated) -> Interval | None:
    """The fitted win rate at equal length, if there is one."""
    ends = [found.details.get(f"{CONTROLLED}{end}") for end in ("", "_low", "_high")]
    value, low, high = ends
    return None if value is None or low is None or high is None else Interval(value=value, low=low, high=high)


def _names(report: Report) -> list[str]:
    there = {name for measured in report.held_out.values() for name in measured}
    there |= {name for iteration in report.iterations for name in iteration.measures}
    if report.final or any(iteration.validation for iteration in report.iterations):
        there.add(ACCURACY.name)
    if report.measure != SAMPLED_ACCURACY.name:  # pass@1 of the table of verified answers
        there.discard(SAMPLED_ACCURACY.name)
    first = report.measure or LOSS.name
    return sorted(there & MEASURES.keys(), key=lambda name: (name != first, list(MEASURES).index(name)))


def _of_measure(report: Report, measure: Measure) -> Iterator[Finding]:
    if measure == DISCRIMINATOR:
        yield from _of_the_game(report)
        return
    sets = _held_out(report, measure)
    for name, (base, best) in sets.items():
        yield _finding(_Found(report, measure, name, base, best))
    by_number = {i.iteration: _on_validation(i, measure) for i in report.iterations}
    best_one = by_number.get(report.best_iteration)
    if not sets and best_one is not None and (measure.even is not None or by_number.get(0) is not None):
        found = _finding(_Found(report, measure, "validation", by_number.get(0), best_one))
        chose = ", and the best iteration was chosen on this one" * (report.measure == measure.name)
        caution = ALONE.get(measure.name, f"No final set was evaluated{chose}.")
        yield found.model_copy(update={"sentence": f"{found.sentence} {caution}".strip()})


def _held_out(report: Report, measure: Measure) -> dict[str, tuple[Estimated | None, Estimated]]:
    if measure == ACCURACY:
        return {name: (estimated(base), estimated(best)) for name, (base, best) in report.final.items()}
    return {name: found[measure.name] for name, found in report.held_out.items() if measure.name in found}


def _on_validation(iteration: IterationReport, measure: Measure) -> Estimated | None:
    if measure == ACCURACY and iteration.validation is not None:
        return estimated(iteration.validation)
    return iteration.measures.get(measure.name)


def _finding(found: _Found) -> Finding:
    if found.report.best_iteration == 0:
        return _remaining(found)
    if found.measure == PAIR_ACCURACY:
        return _pairs(found)
    if found.measure.name in ITS_OWN:
        return _own_pairs(found)
    if found.measure == WIN_RATE and (found.base is None or "base" not in found.best.against):
        return _wins(found)
    return _change(found)


def _remaining(found: _Found) -> Finding:
    """The base policy is the result."""
    best = found.best
    if found.measure.even is None:
        figure = (
            f"{found.name} {found.value(best.value.value)}, {LEVEL} interval {shown_range(found.measure, best.value)}"
        )
        figure += f", {found.rows}{_how(found.measure)}"
    else:
        figure = (
            f"{found.measure.label} on {found.set_name} {found.measure.rows} {percent(best.value.value)}, {found.rows}"
        )
    before = f"No iteration of {found.report.algorithm} did better than the base policy, which remains the result: "
    return found.said("not compared", f"{before}{figure}.", too_small(found.measure, best.rows, best.value))


def _change(found: _Found) -> Finding:
    """From the base's value to the best policy's, with the paired difference."""
    measure, best, base, algorithm = found.measure, found.best, found.base, found.report.algorithm
    after, how = found.value(best.value.value), f"{found.rows}{_how(measure)}"
    if base is None:
        sentence = (
            f"{algorithm}: {found.name} is {after} {shown_range(measure, best.value)}, {how}; the base's is unknown."
        )
        return found.said("not compared", sentence)
    difference = best.against.get("base")
    if difference is None:
        sentence = (
            f"{algorithm}: {found.name} was {found.value(base.value.value)} {shown_range(measure, base.value)} for the "
            f"base and is {after} {shown_range(measure, best.value)} for the best iteration, {how}; the two were not "
            f"compared {measure.rows.removesuffix('s')} by {measure.rows.removesuffix('s')}."
        )
        return found.said("not compared", sentence)
    towards = direction(difference)
    verb = {"higher": "raised", "lower": "lowered"}.get(towards, "took")
    sentence = (
        f"{algorithm} {verb} {found.name} from {shown(measure, base.value.value)} to {after}: "
        f"{shown_difference(measure, difference.value)}, {LEVEL} interval {shown_range(measure, difference)}, {how}."
    )
    if towards == "no clear difference":
        sentence += " The interval includes zero: the difference is not distinguishable from zero."
    if left_out := best.details.get(LEFT_OUT):
        sentence += (
            f" Prompts that could be judged for only one of the two are left out of the difference: {left_out:,.0f}."
        )
    return found.said(towards, sentence, too_small(measure, best.rows, difference))


def _how(measure: Measure) -> str:
    """A note on how to read a measure's values."""
    how = {ACCURACY.name: ", greedy", LOSS.name: "; lower is better", PROXY.name: "; it can be cheated"}
    return how.get(measure.name, "")


def _share(found: _Found) -> str:
    """The share of the rows, with its interval."""
    value = found.best.value
    n = f"{found.rows} {found.measure.rows}"
    return f"in {percent(value.value)} of {n}, {LEVEL} interval {value_range(value)}"


def _pairs(found: _Found) -> Finding:
    towards = above(found.measure, found.best.value)
    sentence = (
        f"{found.report.algorithm}: on {found.set_name} pairs the policy prefers the chosen answer {_share(found)}; "
        "the run's base is at 50 %."
    )
    sentence += {
        "lower": " It distinguishes them worse than the base.",
        "no clear difference": " The interval includes 50 %: not distinguishable from the base.",
    }.get(towards, "")
    return found.said(towards, sentence, too_small(found.measure, found.best.rows, found.best.value))


def _own_pairs(found: _Found) -> Finding:
    measure, value = found.measure, found.best.value
    share = _share(found)
    if measure == OWN_MARGIN:
        share = f"{found.value(value.value)}, {LEVEL} interval {shown_range(measure, value)}, {found.rows} pairs"
    sentence = f"{found.report.algorithm}: in iteration {found.report.best_iteration} {ITS_OWN[measure.name]}"
    towards = above(measure, value)
    return found.said(towards, sentence.format(share=share), too_small(measure, found.best.rows, value))


def _wins(found: _Found) -> Finding:
    towards, level = above(found.measure, found.best.value), at_equal_length(found.best)
    rival = RIVALS.get(found.report.rival or "", "the other answer")
    sentence = (
        f"{found.report.algorithm}: on {found.set_name} prompts the judge prefers the policy's answer over {rival} "
        f"{_share(found)}; 50 % is a tie."
    )
    sentence += {
        "lower": " The judge prefers the other one.",
        "no clear difference": " The interval includes 50 %: neither is clearly preferred.",
    }.get(towards, "")
    if level is None:
        sentence += _why_no_level(found.best)
    elif (level.low, level.high) == (0, 1):
        sentence += (
            " The win rate at equal length cannot be estimated: one side's answers are nearly always longer, or the "
            "length decides which one is preferred."
        )
    else:
        sentence += f" At equal length it is {percent(level.value)}, interval {value_range(level)}"
        sentence += ", which includes 50 %." if level.low <= 0.5 <= level.high else "."
    return found.said(towards, sentence, too_small(found.measure, found.best.rows, found.best.value))


def _why_no_level(found: Estimated) -> str:
    for side, said in (("ours", "longer"), ("theirs", "shorter")):
        if found.rows and found.details.get(f"longer_{side}") == found.rows:
            return f" The win rate at equal length cannot be estimated: the policy's answer is always the {said} one."
    return ""


def _of_the_game(report: Report) -> Iterator[Finding]:
    """SPIN's discriminator: the opponent changes, so what counts is how close the share is to a half in the end."""
    told: Mapping[int, Estimated] = {
        i.iteration: i.measures[DISCRIMINATOR.name] for i in report.iterations if DISCRIMINATOR.name in i.measures
    }
    if not told:
        return
    first, last = min(told), max(told)
    found = _Found(report, DISCRIMINATOR, "validation", None, told[last])
    towards = above(DISCRIMINATOR, found.best.value)
    earlier = f"; in iteration {first} it was {percent(told[first].value.value)}" * (first < last)
    sentence = (
        f"{report.algorithm}: in iteration {last} the policy distinguishes the gold answer from its opponent's "
        f"{_share(found)}, on validation{earlier}."
    )
    sentence += (
        " The interval includes 50 %: the opponent's answers cannot be distinguished from the gold answers, and the "
        "game has ended."
        if towards == "no clear difference"
        else " The game ends at 50 %."
    )
    yield found.said(towards, sentence, too_small(DISCRIMINATOR, found.best.rows, found.best.value))
