"""The stage `proxy`: the reward that is optimized, on the answers that a verifier or another reward has graded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import TypeAdapter

from data.files import write_json
from data.measures import PROXY, Estimated
from data.overoptimization import BestOf, best_of
from data.rewards import RewardError
from data.rows import MeasuredRow, Score
from data.storage import read_rows
from models.config import EngineConfig, ScoreJob
from tasks.rollouts.measured import load_measured, write_measured
from tasks.rollouts.rewards import MODELLED, Judging, RewardConfig, judging_estimate, reward_identity
from tasks.rollouts.scoring import score_jobs
from tasks.stage.contract import JOURNAL, Artifact, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SET, BEST_OF, KL = "validation", "best_of.json", "kl"
_BEST_OF = TypeAdapter(list[BestOf])


@dataclass(frozen=True)
class Proxy:
    """The reward that is optimized.

    Attributes:
        scorers: the models that score for it, by the name of their reward.
        problems: the validation problems, on whose answers it is measured.
    """

    reward: RewardConfig
    scorers: Mapping[str, Artifact]
    engine: EngineConfig
    problems: Artifact

    @property
    def judging(self) -> Judging:
        """How answers are scored, also by a reward model that was made in this run."""
        reward = self.reward
        if MODELLED not in self.scorers:
            return Judging(reward, self.engine)
        there = reward.model.model_copy(update={"path": str(self.scorers[MODELLED].path)})
        return Judging(reward.model_copy(update={"model": there}), self.engine)


def measure_proxy(at: Place, proxy: Proxy, evaluated: Result, learned: Result | None, base: Result | None) -> Result:
    """Score the sampled answers of an evaluation with the reward that is optimized, as the measure `proxy`.

    Its detail `kl` is the divergence from the base in the last step of the iteration, in nats per answer. Of the base,
    what the best of its answers are worth goes to `validation/best_of.json`.

    Args:
        evaluated: the stage whose validation answers are scored.
        learned: the stage that made the policy; None: it is the base.
        base: this stage of the base.
    """
    samples = evaluated.artifact(f"{SET}/sampled")
    inputs = {"problems": proxy.problems, "samples": samples, "gold": evaluated.artifact(f"{SET}/sampled-scores")}
    inputs |= dict(proxy.scorers)
    inputs |= {"learned": learned.artifact("policy")} if learned else {}
    inputs |= {"base": base.artifact()} if base else {}
    stage = Stage(
        at.stage("proxy"),
        VERSION,
        reward_identity(proxy.reward),
        inputs,
        at.seed,
        resumable=True,
        estimate=judging_estimate(proxy.judging, proxy.scorers),
    )

    def work(attempt: Path) -> Outcome:
        told = {"problems": proxy.problems.path, "samples": samples.path, "output": attempt / "scores"}
        job = ScoreJob.model_validate(told)
        score_jobs(at, attempt, [job], proxy.judging)
        graded = _by_problem(job.output)
        golds = [[float(score.verdict == "correct") for score in scores] for _, scores in _of(inputs["gold"].path)]
        rows = [MeasuredRow(name, 0, sum(values) / len(values)) for name, values in graded]
        earlier = {"base": load_measured([base])} if base else {}
        details = {PROXY.name: {KL: _divergence(learned)}}
        found = write_measured(attempt / SET, {PROXY.name: rows}, at.seed, earlier, details)[PROXY.name]
        if base is None and all(len(values) == len(gold) for (_, values), gold in zip(graded, golds, strict=True)):
            write_json(attempt / SET / BEST_OF, _BEST_OF.dump_python(best_of([v for _, v in graded], golds)))
        return Outcome(len(rows), len(rows), said=_said(found))

    return at.run.execute(stage, work)


def load_best_of(stage: Result) -> list[BestOf]:
    """What the base's best answers are worth; empty if the stage is another policy's, or only planned."""
    file = stage.path / SET / BEST_OF
    return _BEST_OF.validate_json(file.read_text()) if stage.finished is not None and file.exists() else []


def _of(scores: Path) -> list[tuple[str, list[Score]]]:
    return [(name, list(rows)) for name, rows in groupby(read_rows(Score, scores), key=lambda score: score.problem_id)]


def _by_problem(scores: Path) -> list[tuple[str, list[float]]]:
    """The values of each problem's answers, without those that got none.

    Raises:
        RewardError: a problem has no value at all.
    """
    found = [(name, [score.value for score in rows if score.value is not None]) for name, rows in _of(scores)]
    if (lacking := next((name for name, values in found if not values), None)) is not None:
        raise RewardError(
            f"None of the sampled answers to the validation problem {lacking} could be scored, so the reward that is "
            "optimized cannot be compared between policies.",
            what_next=f"See why in the scores in {scores}, and mend the reward, or raise evaluate.samples.",
        )
    return found


def _divergence(learned: Result | None) -> float:
    if learned is None:
        return 0.0
    last = json.loads((learned.path / JOURNAL).read_text().splitlines()[-1])
    return float(last.get("kl_per_answer", last["kl"] * last["length"]))


def _said(found: Estimated) -> str:
    change = found.against.get("base")
    over = f", {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] over the base" if change else ""
    return f"proxy reward {PROXY.shown_interval(found.value)}{over}, at {found.details[KL]:.2f} nats per answer"
