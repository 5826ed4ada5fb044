"""Each measure's sentence in every direction, and when a set is said to be too small."""

import pytest

from data.measures import ACCURACY, LOSS, PAIR_ACCURACY, Estimated, Measure
from data.metrics import Interval
from tasks.report.content import IterationReport, Report
from tasks.report.findings import findings
from tasks.report.wording import detail_label, too_small
from tests.unit.tasks.test_report import difference, metrics

CONTROLLED = {"length_controlled": 0.55, "length_controlled_low": 0.48, "length_controlled_high": 0.62}


def interval(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


def estimated(value: Interval, gain: Interval | None = None, rows: int = 99, **details: float) -> Estimated:
    return Estimated(value=value, rows=rows, against={"base": gain} if gain else {}, details=details)


def report(**fields: object) -> Report:
    values = {
        "algorithm": "DPO",
        "run": "demo",
        "status": "finished",
        "measure": "loss",
        "best_iteration": 1,
        "stop_reason": "it has one iteration",
        "iterations": [IterationReport(iteration=0), IterationReport(iteration=1)],
        "final": {},
        "examples": [],
        "config": "",
        "command": "",
        "versions": {},
        "mlflow": "",
    }
    return Report.model_validate(values | fields)


def sentence(measure: str, best: Estimated, base: Estimated | None = None, **fields: object) -> str:
    told = {"measure": measure, "held_out": {"test": {measure: (base, best)}}} | fields
    return findings(report(**told))[0].sentence


BASE = estimated(interval(2.312, 2.2, 2.4))


@pytest.mark.parametrize(
    ("value", "gain", "said"),
    [
        (
            1.871,
            interval(-0.441, -0.503, -0.38),
            "DPO lowered the test loss per token of gold answers from 2.312 to 1.871 nats: −0.441, 95 % interval "
            "[−0.503, −0.380], n = 99; lower is better.",
        ),
        (
            2.5,
            interval(0.188, 0.1, 0.3),
            "DPO raised the test loss per token of gold answers from 2.312 to 2.500 nats: +0.188, 95 % interval "
            "[0.100, 0.300], n = 99; lower is better.",
        ),
        (
            2.3,
            interval(-0.012, -0.1, 0.1),
            "DPO took the test loss per token of gold answers from 2.312 to 2.300 nats: −0.012, 95 % interval "
            "[−0.100, 0.100], n = 99; lower is better. The interval includes zero: the difference is not "
            "distinguishable from zero.",
        ),
    ],
    ids=["lowered", "raised", "unclear"],
)
def test_loss(value: float, gain: Interval, said: str) -> None:
    assert sentence("loss", estimated(interval(value, value, value), gain), BASE) == said


@pytest.mark.parametrize(
    ("value", "ending"),
    [
        (interval(0.7, 0.6, 0.8), "the run's base is at 50 %."),
        (interval(0.3, 0.2, 0.4), "the run's base is at 50 %. It distinguishes them worse than the base."),
        (
            interval(0.633, 0.467, 0.8),
            "the run's base is at 50 %. The interval includes 50 %: not distinguishable from the base.",
        ),
    ],
    ids=["better", "worse", "unclear"],
)
def test_pair_accuracy(value: Interval, ending: str) -> None:
    found = sentence("pair_accuracy", estimated(value, rows=30))
    begins = "DPO: on test pairs the policy prefers the chosen answer in"
    ends = f"[{100 * value.low:.1f}, {100 * value.high:.1f}]"
    assert found == f"{begins} {100 * value.value:.1f} % of n = 30 pairs, 95 % interval {ends}; {ending}"


@pytest.mark.parametrize(
    ("rival", "value", "details", "said"),
    [
        (
            "base",
            interval(0.612, 0.562, 0.662),
            CONTROLLED,
            "prefers the policy's answer over the base's answer in 61.2 % of n = 99 prompts, 95 % interval "
            "[56.2, 66.2]; 50 % is a tie. At equal length it is 55.0 %, interval [48.0, 62.0], which includes 50 %.",
        ),
        (
            "gold",
            interval(0.3, 0.2, 0.4),
            {},
            "prefers the policy's answer over the gold answer in 30.0 % of n = 99 prompts, 95 % interval [20.0, 40.0]; "
            "50 % is a tie. The judge prefers the other one.",
        ),
        (
            "base",
            interval(0.9, 0.85, 0.95),
            {"longer_ours": 99.0, "longer_theirs": 0.0},
            "prefers the policy's answer over the base's answer in 90.0 % of n = 99 prompts, 95 % interval "
            "[85.0, 95.0]; 50 % is a tie. The win rate at equal length cannot be estimated: the policy's answer is "
            "always the longer one.",
        ),
        (
            "base",
            interval(0.9, 0.85, 0.95),
            {"length_controlled": 0.5, "length_controlled_low": 0.0, "length_controlled_high": 1.0},
            "prefers the policy's answer over the base's answer in 90.0 % of n = 99 prompts, 95 % interval "
            "[85.0, 95.0]; 50 % is a tie. The win rate at equal length cannot be estimated: one side's answers are "
            "nearly always longer, or the length decides which one is preferred.",
        ),
        (
            "previous",
            interval(0.52, 0.42, 0.62),
            CONTROLLED | {"length_controlled_low": 0.51},
            "prefers the policy's answer over the previous policy's answer in 52.0 % of n = 99 prompts, 95 % interval "
            "[42.0, 62.0]; 50 % is a tie. The interval includes 50 %: neither is clearly preferred. At equal length it "
            "is 55.0 %, interval [51.0, 62.0].",
        ),
    ],
)
def test_win_rate(rival: str, value: Interval, details: dict[str, float], said: str) -> None:
    assert sentence("win_rate", estimated(value, **details), rival=rival).endswith(f"the judge {said}")


def test_win_rate_of_both_policies_against_the_gold_answers_is_compared() -> None:
    best = estimated(interval(0.4, 0.3, 0.5), interval(0.1, 0.05, 0.15))
    found = sentence("win_rate", best, estimated(interval(0.3, 0.2, 0.4)), rival="gold")
    assert found.startswith("DPO raised the test win rate against the gold answer from 30.0 % to 40.0 %: +10.0 points")
    unread = best.model_copy(update={"details": {"left_out_of_the_difference": 2.0}})
    found = sentence("win_rate", unread, estimated(interval(0.3, 0.2, 0.4)), rival="gold")
    assert found.endswith("Prompts that could be judged for only one of the two are left out of the difference: 2.")


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (interval(0.75, 0.65, 0.85), "in iteration 1 it was 90.0 %. The game ends at 50 %."),
        (interval(0.55, 0.45, 0.65), "cannot be distinguished from the gold answers, and the game has ended."),
    ],
)
def test_discriminator_accuracy_is_told_of_the_last_iteration_beside_the_first(last: Interval, said: str) -> None:
    shares = [interval(0.9, 0.85, 0.95), last]
    games = [
        IterationReport(iteration=n, measures={"discriminator_accuracy": estimated(share)})
        for n, share in enumerate(shares, start=1)
    ]
    (found,) = findings(report(iterations=[IterationReport(iteration=0), *games], best_iteration=2, measure=None))
    assert found.sentence.startswith(
        "DPO: in iteration 2 the policy distinguishes the gold answer from its opponent's in"
    )
    assert found.sentence.endswith(said)


@pytest.mark.parametrize(
    ("decides", "first"),
    [("accuracy", "test accuracy"), ("loss", "test loss"), ("win_rate", "the judge"), (None, "test loss")],
)
def test_what_decided_comes_first_and_without_that_the_loss(decides: str | None, first: str) -> None:
    gain = interval(-0.1, -0.2, -0.05)
    others = {"loss": (BASE, estimated(BASE.value, gain)), "win_rate": (None, estimated(interval(0.6, 0.55, 0.65)))}
    final = {"test": (metrics(0.5), metrics(0.6, difference(0.1)))}
    found = findings(report(measure=decides, final=final, held_out={"test": others}))
    assert first in found[0].sentence and len(found) == 3


def test_a_base_that_remains_the_result_is_said_to_for_every_measure() -> None:
    gain = interval(0.0, 0.0, 0.0)
    held_out = {"test": {"loss": (BASE, BASE), "pair_accuracy": (None, estimated(interval(0.5, 0.5, 0.5), gain))}}
    found = findings(report(best_iteration=0, held_out=held_out))
    assert len(found) == 2
    assert all(f.sentence.startswith("No iteration of DPO did better than the base policy, which") for f in found)


def test_what_was_measured_on_validation_only_is_marked() -> None:
    after = IterationReport(iteration=1, measures={"loss": estimated(BASE.value, interval(-0.1, -0.2, -0.05))})
    iterations = [IterationReport(iteration=0, measures={"loss": BASE}), after]
    (chosen,) = findings(report(iterations=iterations))
    (not_chosen,) = findings(report(iterations=iterations, measure=None))
    assert chosen.sentence.endswith("evaluated, and the best iteration was chosen on this one.")
    assert not_chosen.sentence.endswith("No final set was evaluated.")


@pytest.mark.parametrize(
    ("measure", "rows", "width", "small"),
    [
        (ACCURACY, 29, 0.01, True),
        (ACCURACY, 30, 0.5, False),
        (ACCURACY, 30, 0.51, True),
        (PAIR_ACCURACY, 500, 0.04, False),
        (LOSS, 29, 0.001, True),
        (LOSS, 30, 2.0, False),  # a loss has no scale of which its interval could be half
    ],
)
def test_sets_of_which_the_interval_says_nothing_are_pointed_out(
    measure: Measure, rows: int, width: float, small: bool
) -> None:
    assert bool(too_small(measure, rows, interval(0.0, -width / 2, width / 2))) == small
    best = estimated(interval(0.5, 0.5 - width / 2, 0.5 + width / 2), interval(0.0, -width / 2, width / 2), rows)
    if measure != ACCURACY:
        assert ("is too few" in sentence(measure.name, best, BASE)) == small


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("same", "prompts with two identical answers: a tie"),
        ("previous_win_rate_low", "against previous: win rate, lower end of the interval"),
        ("gold_length_controlled", "against gold: win rate at equal length"),
        ("rewards/margins", "rewards/margins"),
        ("perplexity", "perplexity"),
    ],
)
def test_further_figures_are_called_what_they_are(name: str, label: str) -> None:
    assert detail_label(name) == label
