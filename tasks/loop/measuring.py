"""How the policies of a loop are measured on held-out rows, and which measure decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.errors import AutodidactError
from data.measures import ACCURACY, LOSS, MEASURES, PAIR_ACCURACY, SAMPLED_ACCURACY, Measure
from data.prepare.splits import HELD_OUT
from tasks.policies.reference import PairsMeasured
from tasks.rollouts.evaluate import evaluate
from tasks.rollouts.judge_agreement import PolicyJudge, measure_judge
from tasks.rollouts.likelihood import HeldOutRows, measure_likelihood
from tasks.rollouts.proxy import Proxy, measure_proxy
from tasks.rollouts.win_rate import answer_prompts, measure_win_rate
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import Artifact
from tasks.stage.run import Place, Result, Run

VALIDATION, TEST, ANSWERS = "validation", "test", "answers"
LAST = "last"  # as a measure: no measure decides


class MeasureError(AutodidactError):
    """The settings ask for a measurement that this loop cannot take."""


@dataclass(frozen=True)
class Measuring:
    """How a loop's policies are measured.

    Attributes:
        verified: the held-out sets of problems whose answers can be graded.
        gold: the held-out sets of gold answers.
        prompts: the held-out sets of prompts for the win rate.
        decides: the measure used to stop, choose the best iteration and move the champion, if any.
        proxy: the reward that is optimized, if another one measures.
        judge: how policies judge, if they do.
    """

    run: Run
    config: LoopConfig
    problems: Result | None
    verified: Mapping[str, Artifact]
    gold: Mapping[str, Artifact]
    prompts: Mapping[str, Artifact]
    decides: Measure | None
    proxy: Proxy | None = None
    judge: PolicyJudge | None = None

    @property
    def held_out_prompts(self) -> dict[str, Artifact]:
        """Every set of problems that training must not repeat."""
        found = dict(self.prompts)
        if self.problems is not None and self.config.overlap.held_out:
            found[HELD_OUT] = self.problems.artifact(f"{HELD_OUT}.parquet")
        return found

    def test_set(self, pairs: Mapping[str, PairsMeasured]) -> str | None:
        """Digest of the test rows of the deciding measure, if any."""
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
        """Run the stages that measure a policy, and return them by kind. Kinds without rows in this loop are left out.

        Args:
            sets: names of the held-out sets.
            against: earlier measurements of other policies to compare with, by policy name.
            pairs: held-out pairs, by set.
        """
        config, found = self.config, dict[str, Result]()
        if verified := _of(self.verified, sets):
            found["evaluate"] = evaluate(at, policy, verified, config.evaluating, _kind("evaluate", against))
        rows = HeldOutRows(_of(self.gold, sets), pairs, config.pair_measure)
        if rows:
            found["likelihood"] = measure_likelihood(at, policy, rows, config.training, _kind("likelihood", against))
        if config.win_rate and (prompts := _of(self.prompts, sets)):
            found |= self._judged(at, policy, prompts, against, found.get("evaluate"))
        return found

    def optimized(
        self, at: Place, policy: Result, measured: Mapping[str, Result], base: Mapping[str, Result] | None
    ) -> dict[str, Result]:
        """Measure what is optimized on the validation answers of an iteration, if that is another reward.

        Args:
            base: measurements of the base; None: this is the base.
        """
        if self.proxy is None or "evaluate" not in measured:
            return {}
        learned, start = (policy, base["proxy"]) if base else (None, None)
        return {"proxy": measure_proxy(at, self.proxy, measured["evaluate"], learned, start)}

    def judging(self, at: Place, policy: Artifact, base: Mapping[str, Result] | None) -> dict[str, Result]:
        """Measure how well the policy judges, if it does and there are pairs to measure it on."""
        if self.judge is None or self.judge.pairs is None:
            return {}
        return {"judge": measure_judge(at, self.judge, policy, base["judge"] if base else None)}

    def over(self, at: Place, policy: Result, rival: Artifact) -> dict[str, Result]:
        """Measure the win rate of a policy over another, on the test prompts.

        Args:
            policy: a stage with its answers.
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
        """Generate a policy's answers and let the judge compare them with its opponents'."""
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


def measuring(
    run: Run,
    config: LoopConfig,
    problems: Result | None,
    proxy: Proxy | None = None,
    judge: PolicyJudge | None = None,
) -> Measuring:
    """Return what can be measured in a loop, and which measure decides.

    Raises:
        MeasureError: the settings name a measure that cannot be computed here, or a judge without prompts.
    """
    rows = config.measurable
    sets = {} if problems is None else config.held_out(problems, "validation", "test", "transfer")
    if config.win_rate and not sets:
        raise MeasureError(
            "win_rate is set, but there are no held-out prompts for its judge: pairs provide none.",
            what_next="Give prompts or problems with --validation (and --test), or leave out win_rate.",
        )
    verified = sets if rows.verified else {}
    gold = sets if rows.gold else {}
    if config.stop.rule == "discriminator" and VALIDATION not in gold:
        raise MeasureError(
            "stop.rule: discriminator needs gold answers to held-out prompts, but there are none.",
            what_next="Give --validation with gold answers, or choose stop.rule paper, patience or none.",
        )
    decides = deciding(config, verified, gold, sets)
    if config.stop.rule == "overoptimized" and (proxy is None or decides not in (ACCURACY, SAMPLED_ACCURACY)):
        raise MeasureError(
            "stop.rule: overoptimized compares the reward model with the graded answers to validation problems, by "
            "which iterations are chosen, but this run has none or chooses by another measure.",
            what_next="Give --validation and measure: sampled_accuracy, or choose stop.rule paper, patience or none.",
        )
    return Measuring(run, config, problems, verified, gold, sets, decides, proxy, judge)


def deciding(
    config: LoopConfig, verified: Mapping[str, Any], gold: Mapping[str, Any], prompts: Mapping[str, Any]
) -> Measure | None:
    """Return the measure that the settings name, or the first of the flow's that can be computed.

    Raises:
        MeasureError: the named measure cannot be computed.
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
        f"measure: {config.measure} cannot be computed in this run, which {why}.",
        what_next=f"Choose {', '.join([*known, LAST])}, or leave it out.",
    )


def _lacking(measure: str, judge: bool) -> str:
    return {
        "accuracy": "has no held-out problems whose answers can be graded",
        "sampled_accuracy": "has no held-out problems whose answers can be graded, or no 1 in evaluate.pass_at",
        "loss": "has no gold answers to held-out prompts",
        "pair_accuracy": "has no held-out pairs",
        "win_rate": "has no validation prompts: give --validation" if judge else "has no judge: set win_rate.judge",
    }[measure]


def _of(held_out: Mapping[str, Artifact], sets: Sequence[str]) -> dict[str, Artifact]:
    return {name: held_out[name] for name in sets if name in held_out}


def _kind(kind: str, against: Mapping[str, Mapping[str, Result]]) -> dict[str, Result]:
    return {name: stages[kind] for name, stages in against.items() if kind in stages}
