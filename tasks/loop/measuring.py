"""How the policies of a loop are measured on held-out rows, and by which measure the loop decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import AutodidactError
from data.measures import DISCRIMINATOR, LOSS, MEASURES, PAIR_ACCURACY, Measure
from data.prepare.splits import HELD_OUT
from tasks.policies.reference import PairsMeasured
from tasks.rollouts.evaluate import evaluate
from tasks.rollouts.likelihood import HeldOutRows, measure_likelihood
from tasks.rollouts.win_rate import answer_prompts, measure_win_rate
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact
from tasks.stage.run import Place, Result, Run

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
    verified: Mapping[str, Artifact]
    gold: Mapping[str, Artifact]
    prompts: Mapping[str, Artifact]
    decides: Measure | None

    @property
    def held_out_prompts(self) -> dict[str, Artifact]:
        """Every set of problems that training must not repeat."""
        found = dict(self.prompts)
        if self.problems is not None and self.config.overlap.held_out:
            found[HELD_OUT] = self.problems.artifact(f"{HELD_OUT}.parquet")
        return found

    def test_set(self, pairs: Mapping[str, PairsMeasured]) -> str | None:
        """Digest of the rows of the final test by the measure that decides, where there are any."""
        if self.decides is PAIR_ACCURACY:
            return pairs[TEST].pairs.digest if TEST in pairs else None
        rows = self.gold if self.decides is LOSS else self.prompts
        return rows[TEST].digest if self.decides and TEST in rows else None

    def measure(
        self,
        at: Place,
        policy: Artifact,
        sets: Sequence[str],
        against: Mapping[str, Mapping[str, Result]],
        pairs: Mapping[str, PairsMeasured],
    ) -> dict[str, Result]:
        """The stages that measure a policy, by their kind. Those of a kind that the loop has no rows for are left out.

        Args:
            sets: names of the held-out sets.
            against: earlier measurements of other policies, which it is compared with, by their names.
            pairs: held-out pairs, by set.
        """
        config, found = self.config, dict[str, Result]()
        if verified := _of(self.verified, sets):
            found["evaluate"] = evaluate(at, policy, verified, config.evaluating, _kind("evaluate", against))
        rows = HeldOutRows(_of(self.gold, sets), pairs, DISCRIMINATOR if config.has_opponent else PAIR_ACCURACY)
        if rows:
            found["likelihood"] = measure_likelihood(at, policy, rows, config.training, _kind("likelihood", against))
        if config.win_rate and (prompts := _of(self.prompts, sets)):
            found |= self._judged(at, policy, prompts, against, found.get("evaluate"))
        return found

    def over(self, at: Place, policy: Result, rival: Artifact) -> dict[str, Result]:
        """The win rate of a policy over another one, on the prompts of the final test.

        Args:
            policy: a stage that has its answers.
        """
        prompts, how = _of(self.prompts, (TEST,)), self.config.comparing
        theirs = answer_prompts(at, rival, prompts, how)
        return {"win_rate": measure_win_rate(at, policy, prompts, {"champion": theirs}, how)}

    def _judged(
        self,
        at: Place,
        policy: Artifact,
        prompts: Mapping[str, Artifact],
        against: Mapping[str, Mapping[str, Result]],
        evaluated: Result | None,
    ) -> dict[str, Result]:
        """A policy's answers, and what the judge prefers of them and those of its opponents."""
        how = self.config.comparing
        ours = evaluated or answer_prompts(at, policy, prompts, how)
        found = {} if evaluated else {ANSWERS: ours}
        opponents: dict[str, Result | None] = {
            name: None if name == "gold" else against[name].get(ANSWERS) or against[name]["evaluate"]
            for name in how.config.against
            if name == "gold" or name in against
        }
        if opponents and next(iter(opponents)) == how.config.against[0]:
            found["win_rate"] = measure_win_rate(at, ours, prompts, opponents, how)
        return found


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


def _of(held_out: Mapping[str, Artifact], sets: Sequence[str]) -> dict[str, Artifact]:
    return {name: held_out[name] for name in sets if name in held_out}


def _kind(kind: str, against: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    return {name: stages[kind] for name, stages in against.items() if kind in stages}
