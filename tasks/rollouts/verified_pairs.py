"""The stage `verify`: whether a verifier orders a judge's pairs as the judge did. Nothing is learned from that."""

from collections.abc import Iterator
from pathlib import Path

from data.judging import agreement, as_samples
from data.measures import OWN_PAIRS_RIGHT
from data.rows import Pair, Problem, Sample, Score
from data.storage import count_rows, read_rows, write_rows
from data.wording import counted
from models.config import ScoreJob
from models.shards import shard_path
from tasks.rollouts.judge_agreement import SET
from tasks.rollouts.measured import write_measured
from tasks.rollouts.rewards import Judging, reward_identity
from tasks.rollouts.scoring import score_jobs
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
NO_REFERENCE = "no reference"


def verify_pairs(at: Place, problems: Artifact, pairs: Artifact, verifier: Judging) -> Result:
    """Grade both sides of each pair whose problem has a reference, as the measure `own_pairs_right`.

    A pair with two right or two wrong sides counts a half, so a judge that orders at random reaches a half.

    Args:
        pairs: that a policy judged and learns.
        verifier: functions alone.
    """
    stage = Stage(
        at.stage("verify"),
        VERSION,
        reward_identity(verifier.reward),
        {"problems": problems, "pairs": pairs},
        at.seed,
        estimate=Estimate(samples=2 * pairs.expected, disk_bytes=4_000 * pairs.expected + 1_000_000),
    )

    def work(attempt: Path) -> Outcome:
        references = {p.id: p.reference for p in read_rows(Problem, problems.path) if p.reference is not None}
        asked, samples = attempt / ".problems.parquet", attempt / ".samples"
        samples.mkdir()
        kept = write_rows(Problem, asked, _asked(pairs.path, references))
        write_rows(Sample, shard_path(samples, 0), _sides(pairs.path, references))
        given, rows = count_rows(pairs.path), []
        if kept:
            job = ScoreJob(problems=asked, samples=samples, output=attempt / SET / "scores")
            score_jobs(at, attempt, [job], verifier)
            rows = agreement(read_rows(Score, job.output))
        found = write_measured(attempt / SET, {OWN_PAIRS_RIGHT.name: rows}, at.seed)
        told = [OWN_PAIRS_RIGHT.shown_interval(one.value) for one in found.values()]
        said = f"the verifier orders {told[0] if told else 'none'} of {counted(len(rows), 'pair')} alike"
        return Outcome(given, len(rows), {NO_REFERENCE: given - kept} if kept < given else {}, said=said)

    return at.run.execute(stage, work)


def _asked(pairs: Path, references: dict[str, str]) -> Iterator[Problem]:
    for pair in read_rows(Pair, pairs):
        if pair.problem_id in references:
            problem, _ = as_samples(pair)
            yield Problem(problem.id, problem.messages, references[pair.problem_id], None, problem.source, "train")


def _sides(pairs: Path, references: dict[str, str]) -> Iterator[Sample]:
    for pair in read_rows(Pair, pairs):
        if pair.problem_id in references:
            yield from as_samples(pair)[1]
