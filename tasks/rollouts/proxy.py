"""The stage `proxy`: what the reward model that is optimized says of answers that another reward has graded."""

import json
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
from data.wording import counted
from models.config import EngineConfig, RewardModelConfig, ScoreJob
from models.on_policy import ROLLOUTS
from tasks.rollouts.measured import load_measured, write_measured
from tasks.rollouts.rewards import MODELLED, Judging, RewardConfig, graders, judging_estimate
from tasks.rollouts.scoring import score_jobs
from tasks.stage.contract import JOURNAL, Artifact, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SET, BEST_OF, KL, NO_VALUE = "validation", "best_of.json", "kl", "no value"
_BEST_OF = TypeAdapter(list[BestOf])


@dataclass(frozen=True)
class Proxy:
    """The reward model that is optimized.

    Attributes:
        config: its settings, without its path if it is made in this run.
        problems: the validation problems, on whose answers it is measured.
    """

    config: RewardModelConfig
    model: Artifact
    engine: EngineConfig
    problems: Artifact

    @property
    def judging(self) -> Judging:
        """How answers are scored: by this model alone, whatever else is optimized."""
        there = self.config.model_copy(update={"path": str(self.model.path)})
        return Judging(RewardConfig(name=MODELLED, model=there, parts={}, options={}), self.engine)


def measure_proxy(at: Place, proxy: Proxy, evaluated: Result, learned: Result | None, base: Result | None) -> Result:
    """Score the sampled answers of an evaluation with the reward model that is optimized, as the measure `proxy`.

    Its detail `kl` is the divergence from the base before the last step of the iteration, in nats per answer. Of the
    base, what the best of its answers are worth goes to `validation/best_of.json`. A problem without any answer that
    the model can read is left out.

    Args:
        evaluated: the stage whose validation answers are scored.
        learned: the stage that made the policy; None: it is the base.
        base: this stage of the base.
    """
    samples, gold = (evaluated.artifact(f"{SET}/{kind}") for kind in ("sampled", "sampled-scores"))
    inputs = {"problems": proxy.problems, "samples": samples, "gold": gold}
    inputs |= {MODELLED: proxy.model} | ({"learned": learned.artifact(ROLLOUTS)} if learned else {})
    inputs |= {"base": base.artifact()} if base else {}
    stage = Stage(
        at.stage("proxy"),
        VERSION,
        {
            "grader": graders(proxy.judging.reward)[MODELLED],
            "dtype": proxy.config.dtype,
            "max_length": proxy.config.max_length,
        },
        inputs,
        at.seed,
        resumable=True,
        estimate=judging_estimate(proxy.judging, {MODELLED: proxy.model}),
    )

    def work(attempt: Path) -> Outcome:
        told = {"problems": proxy.problems.path, "samples": samples.path, "output": attempt / "scores"}
        job = ScoreJob.model_validate(told)
        score_jobs(at, attempt, [job], proxy.judging)
        given = {name: [score.value for score in scores] for name, scores in _of(job.output)}
        graded = {name: [value for value in values if value is not None] for name, values in given.items()}
        rows = [MeasuredRow(name, 0, sum(values) / len(values)) for name, values in graded.items() if values]
        if not rows:
            raise RewardError(
                f"The reward model gave no value to any of the {counted(len(given), 'problem')} on validation.",
                what_next=f"See why in {job.output}: the answers may be too long for it (reward.model.max_length).",
            )
        earlier = {"base": load_measured([base])} if base else {}
        details = {PROXY.name: {KL: _divergence(learned)}}
        found = write_measured(attempt / SET, {PROXY.name: rows}, at.seed, earlier, details, partly=True)[PROXY.name]
        if base is None:
            golds = {name: [float(one.verdict == "correct") for one in scores] for name, scores in _of(gold.path)}
            whole = [name for name, values in graded.items() if len(values) == len(golds[name])]
            best = best_of([graded[name] for name in whole], [golds[name] for name in whole])
            write_json(attempt / SET / BEST_OF, _BEST_OF.dump_python(best))
        return Outcome(len(given), len(rows), {NO_VALUE: len(given) - len(rows)}, said=_said(found))

    return at.run.execute(stage, work)


def load_best_of(stage: Result) -> list[BestOf]:
    """What the base's best answers are worth; empty if the stage is another policy's, or only planned."""
    file = stage.path / SET / BEST_OF
    return _BEST_OF.validate_json(file.read_text()) if stage.finished is not None and file.exists() else []


def _of(scores: Path) -> list[tuple[str, list[Score]]]:
    return [(name, list(rows)) for name, rows in groupby(read_rows(Score, scores), key=lambda score: score.problem_id)]


def _divergence(learned: Result | None) -> float:
    if learned is None:
        return 0.0
    last = json.loads((learned.path / JOURNAL).read_text().splitlines()[-1])
    return float(last.get("kl_per_answer", last["kl"] * last["length"]))


def _said(found: Estimated) -> str:
    change = found.against.get("base")
    over = f", {change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] over the base" if change else ""
    return f"proxy reward {PROXY.shown_interval(found.value)}{over}, at {found.details[KL]:.2f} nats per answer"
