"""The stage `judge`: how well a policy judges, on pairs whose better side people have named."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from data.judge_questions import Opinion
from data.judging import agreement, as_samples, judge_details, useless
from data.measures import AGREEMENT, Estimated
from data.rewards import RewardError
from data.rows import Pair, Problem, Sample, Score
from data.storage import read_rows, write_rows
from data.wording import counted
from models.asking.judge import OPINIONS
from models.config import EngineConfig, JudgeConfig, ScoreJob
from models.shards import shard_path
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.measured import load_measured, write_measured
from tasks.stage.contract import Artifact, Outcome, Stage
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result

VERSION = 1
SET, NOT_READ = "validation", "not read"
LOW_AGREEMENT = 0.55


@dataclass(frozen=True)
class PolicyJudge:
    """How a policy judges.

    Attributes:
        config: the judge's settings, without a model.
        pairs: people's pairs that it is measured on; None: it is not measured.
        policy: which one, if that is known.
    """

    config: JudgeConfig
    engine: EngineConfig
    pairs: Artifact | None
    policy: Artifact | None = None

    def of(self, policy: Artifact) -> Judge:
        """A policy as the judge."""
        return Judge(config=self.config.model_copy(update={"model": str(policy.path)}))


def measure_judge(at: Place, judge: PolicyJudge, policy: Artifact, base: Result | None) -> Result:
    """Let a policy judge both sides of each pair, as the measure `judge_agreement`. Replies are in `validation/scores`.

    Args:
        base: this stage of the base; None: this is the base.

    Raises:
        RewardError: not one pair got a readable judgment on both sides.
    """
    assert judge.pairs is not None
    mine, pairs = judge.of(policy), judge.pairs
    inputs = {"pairs": pairs, "judge": policy} | ({"base": base.artifact()} if base else {})
    stage = Stage(
        at.stage("judge"),
        VERSION,
        mine.identity(),
        inputs,
        at.seed,
        resumable=True,
        estimate=mine.estimate(policy, judge.engine),
    )

    def work(attempt: Path) -> Outcome:
        problems, samples, asked = write_sides(attempt, pairs.path, judge.engine.shard_size // mine.config.opinions)
        job = ScoreJob(problems=problems, samples=samples, output=attempt / SET / "scores")
        command = mine.run(at, attempt, mine.program(at, [job], judge.engine))
        scores = list(read_rows(Score, job.output))
        rows = agreement(scores)
        if not rows:
            raise RewardError(
                f"The judge gave no readable judgment on both sides of any of {counted(len(asked), 'pair')}.",
                what_next=f"See its replies in {job.output}. If they have no room in the model's context, lower "
                "reward.judge.max_reasoning.",
            )
        lengths = [len(side.text) for _, sides in asked for side in sides]
        details = judge_details(rows, list(read_rows(Opinion, job.output / OPINIONS)), lengths, scores)
        earlier = {"base": load_measured([base])} if base else {}
        told = {AGREEMENT.name: details}
        found = write_measured(attempt / SET, {AGREEMENT.name: rows}, at.seed, earlier, told, partly=True)
        _warn(found[AGREEMENT.name])
        dropped = {NOT_READ: len(asked) - len(rows)} if len(rows) < len(asked) else {}
        said = f"it agrees with people on {AGREEMENT.shown_interval(found[AGREEMENT.name].value)} of the pairs"
        return Outcome(len(asked), len(rows), dropped, tuple(command), said=said)

    return at.run.execute(stage, work)


def write_sides(attempt: Path, pairs: Path, shard_size: int) -> tuple[Path, Path, list[tuple[Problem, list[Sample]]]]:
    """Write pairs as problems with two answers each: a file of problems, a folder of shards of samples.

    Returns:
        Both, and what is in them.
    """
    problems, samples = attempt / ".problems.parquet", attempt / ".samples"
    shutil.rmtree(samples, ignore_errors=True)  # of an attempt that was killed: shards may have been smaller
    samples.mkdir()
    asked = [as_samples(pair) for pair in read_rows(Pair, pairs)]
    write_rows(Problem, problems, (problem for problem, _ in asked))
    per_shard = max(1, shard_size // 2)
    for number, first in enumerate(range(0, len(asked), per_shard)):
        some = asked[first : first + per_shard]
        write_rows(Sample, shard_path(samples, number), (side for _, sides in some for side in sides))
    return problems, samples, asked


def useless_judge(stage: Result, entropy: float, length: float) -> str | None:
    """Why a loop cannot go on with the judge that a stage measured, or None."""
    if stage.finished is None:
        return None
    found = load_measured([stage]).get(SET, AGREEMENT.name)
    return None if found is None else useless(found.details, entropy, length)


def _warn(found: Estimated) -> None:
    if found.value.value < LOW_AGREEMENT:
        run_logger().warning(
            "The judge agrees with people on %s of the pairs, which is hardly more than chance. Teach it to judge "
            "first (demonstrations of judgments), or use a stronger model.",
            AGREEMENT.shown_interval(found.value),
        )
