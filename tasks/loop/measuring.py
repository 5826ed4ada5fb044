"""How the policies of a loop are measured on held-out rows, and by which measure the loop decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import AutodidactError
from data.measures import DISCRIMINATOR, LOSS, MEASURES, PAIR_ACCURACY, Measure
from data.splits import HELD_OUT
from tasks.policies.reference import PairsMeasured
from tasks.rollouts.evaluate import HeldOut, evaluate
from tasks.rollouts.likelihood import measure_likelihood
from tasks.rollouts.win_rate import answer_prompts, measure_win_rate
from tasks.rollouts.win_rate_settings import WinRateConfig
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact
from tasks.stage.run import Result, Run

VALIDATION, TEST, ANSWERS = "validation", "test", "answers"
LAST = "last"  # as a measure: nothing is measured to decide by


class MeasureError(AutodidactError):
    """The loop is to decide by what cannot be measured in it."""


@dataclass(frozen=True)
class Measuring:
    """What of a loop's policies is measured.

    Attributes:
        verified: the held-out sets of problems answers to which can be graded.
        gold: the held-out sets of gold answers.
        prompts: the held-out sets of prompts, which the win rate is measured on.
        decides: the measure by which the loop stops, chooses its best iteration and moves the champion, if any.
    """

    run: Run
    config: LoopConfig
    problems: Result | None
    verified: dict[str, HeldOut]
    gold: dict[str, HeldOut]
    prompts: dict[str, HeldOut]
    decides: Measure | None

    @property
    def held_out_prompts(self) -> dict[str, Artifact]:
        """Every set of problems that training must not repeat."""
        found = {name: held_out.problems for name, held_out in self.prompts.items()}
        if self.problems is not None and self.config.overlap.held_out:
            found[HELD_OUT] = self.problems.artifact(f"{HELD_OUT}.parquet")
        return found

    @property
    def win_rate(self) -> WinRateConfig:
        """How a judge is asked, where one is."""
        assert self.config.win_rate is not None
        return self.config.win_rate

    def test_set(self, pairs: Mapping[str, PairsMeasured]) -> str | None:
        """Digest of the rows of the final test by the measure that decides, where there are any."""
        if self.decides is PAIR_ACCURACY:
            return pairs[TEST].pairs.digest if TEST in pairs else None
        rows = self.gold if self.decides is LOSS else self.prompts
        return rows[TEST].problems.digest if self.decides and TEST in rows else None

    def measure(
        self,
        place: str,
        policy: Artifact,
        sets: Sequence[str],
        against: Mapping[str, Mapping[str, Result]],
        pairs: Mapping[str, PairsMeasured],
    ) -> dict[str, Result]:
        """The stages that measure a policy, by their kind. Those of a kind that the loop has no rows for are left out.

        Args:
            place: of the iteration, such as `iter-1`, or `final/base`.
            sets: names of the held-out sets.
            against: earlier measurements of other policies, which it is compared with, by their names.
            pairs: held-out pairs, by set.
        """
        config, found = self.config, dict[str, Result]()
        if verified := _of(self.verified, sets):
            settings = config.evaluate, config.generate, config.measured_by, config.engine, config.seed
            found["evaluate"] = evaluate(
                self.run, _name(place, "evaluate"), policy, verified, *settings, _kind("evaluate", against)
            )
        if pairs or _of(self.gold, sets):
            gold = _of(self.gold, sets)
            expected = sum(held_out.expected for held_out in gold.values())
            found["likelihood"] = measure_likelihood(
                self.run,
                _name(place, "likelihood"),
                policy,
                {name: held_out.problems for name, held_out in gold.items()},
                pairs,
                DISCRIMINATOR if config.has_opponent else PAIR_ACCURACY,
                config.train,
                config.launch,
                config.seed,
                expected + sum(measured.expected for measured in pairs.values()),
                _kind("likelihood", against),
            )
        if config.win_rate and (prompts := _of(self.prompts, sets)):
            found |= self._judged(place, policy, prompts, against, found.get("evaluate"))
        return found

    def over(self, place: str, policy: Result, rival: Artifact) -> dict[str, Result]:
        """The win rate of a policy over another one, on the prompts of the final test.

        Args:
            policy: a stage that has its answers.
        """
        prompts = _of(self.prompts, (TEST,))
        theirs = self._answers(place, rival, prompts)
        settings = self.win_rate, self.config.engine, self.config.seed
        name = _name(place, "win_rate")
        return {"win_rate": measure_win_rate(self.run, name, policy, prompts, {"champion": theirs}, *settings)}

    def _judged(
        self,
        place: str,
        policy: Artifact,
        prompts: dict[str, HeldOut],
        against: Mapping[str, Mapping[str, Result]],
        evaluated: Result | None,
    ) -> dict[str, Result]:
        """A policy's answers, and what the judge prefers of them and those of its opponents."""
        ours = evaluated or self._answers(place, policy, prompts)
        found = {} if evaluated else {ANSWERS: ours}
        opponents: dict[str, Result | None] = {
            name: None if name == "gold" else against[name].get(ANSWERS) or against[name]["evaluate"]
            for name in self.win_rate.against
            if name == "gold" or name in against
        }
        if opponents and next(iter(opponents)) == self.win_rate.against[0]:
            settings = self.win_rate, self.config.engine, self.config.seed
            name = _name(place, "win_rate")
            found["win_rate"] = measure_win_rate(self.run, name, ours, prompts, opponents, *settings)
        return found

    def _answers(self, place: str, policy: Artifact, prompts: dict[str, HeldOut]) -> Result:
        config = self.config
        settings = self.win_rate, config.generate, config.engine, config.seed
        return answer_prompts(self.run, _name(place, ANSWERS), policy, prompts, *settings)


def measuring(run: Run, config: LoopConfig, problems: Result | None) -> Measuring:
    """What can be measured in a loop, and by what of it the loop decides.

    Raises:
        MeasureError: the settings name a measure that cannot be taken here, or a judge that has nothing to judge.
    """
    rows = config.measurable
    sets = {} if problems is None else config.held_out(problems, "validation", "test", "transfer")
    if config.win_rate and not sets:
        raise MeasureError(
            "A win rate is asked for, and there are no held-out prompts for its judge: pairs give it none.",
            what_next="Give prompts or problems with --validation (and --test), or leave out win_rate.",
        )
    verified = sets if rows.verified else {}
    gold = sets if rows.gold else {}
    if config.stop.rule == "discriminator" and VALIDATION not in gold:
        raise MeasureError(
            "stop.rule: discriminator needs gold answers to held-out prompts, and there are none.",
            what_next="Give --validation with gold answers, or choose stop.rule paper, patience or none.",
        )
    return Measuring(run, config, problems, verified, gold, sets, deciding(config, verified, gold, sets))


def deciding(
    config: LoopConfig, verified: Mapping[str, Any], gold: Mapping[str, Any], prompts: Mapping[str, Any]
) -> Measure | None:
    """The measure that the settings name, or else the first of the flow's that can be taken.

    Raises:
        MeasureError: the one that they name cannot be taken.
    """
    there = {
        "accuracy": VALIDATION in verified,
        "sampled_accuracy": VALIDATION in verified and 1 in config.evaluate.pass_at,
        "loss": VALIDATION in gold,
        "pair_accuracy": config.has_pairs,
        "win_rate": config.win_rate is not None and VALIDATION in prompts,
    }
    if config.measure is None:
        return next((MEASURES[name] for name in config.measures if there[name]), None)
    if config.measure == LAST:
        return None
    if there[config.measure]:
        return MEASURES[config.measure]
    known = [name for name, possible in there.items() if possible]
    why = _lacking(config.measure, config.win_rate is not None)
    raise MeasureError(
        f"measure: {config.measure} cannot be taken in this run, which {why}.",
        what_next=f"Choose {', '.join([*known, LAST])}, or leave it out.",
    )


def _lacking(measure: str, judge: bool) -> str:
    return {
        "accuracy": "has no held-out problems whose answers can be graded",
        "sampled_accuracy": "has no held-out problems whose answers can be graded, or no 1 in evaluate.pass_at",
        "loss": "has no gold answers to held-out prompts",
        "pair_accuracy": "has no held-out pairs",
        "win_rate": "has no prompts to validate on: give --validation" if judge else "has no judge: set win_rate.judge",
    }[measure]


def _of(held_out: Mapping[str, HeldOut], sets: Sequence[str]) -> dict[str, HeldOut]:
    return {name: held_out[name] for name in sets if name in held_out}


def _kind(kind: str, against: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    return {name: stages[kind] for name, stages in against.items() if kind in stages}


def _name(place: str, kind: str) -> str:
    """`iter-1/likelihood`, but `final/base-likelihood`, where `final/base` is the evaluation."""
    if place.startswith("iter-"):
        return f"{place}/{kind}"
    return place if kind == "evaluate" else f"{place}-{kind}"
