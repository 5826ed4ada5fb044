"""The stage `score`: apply rewards to samples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from data.files import write_json
from data.rows import UNGRADED, Sample, Score
from data.scoring import Tally
from data.storage import read_rows
from data.wording import counted
from models.config import ScoreJob
from models.score import part_folder
from tasks.rollouts.rewards import Judging, judging_estimate, reward_identity
from tasks.rollouts.scoring import forget_ahead, score_jobs
from tasks.rollouts.spending import Spent, budget_of, spared, spending
from tasks.stage.contract import Artifact, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 2  # scores are in a folder
SCORES, TALLY, SPENT = "scores", "tally.json", "spent"


def score(at: Place, problems: Artifact, samples: Artifact, judging: Judging) -> Result:
    """Score every sample into `scores/`, one file per shard of samples; counts by verdict go to `tally.json`.

    The output of a judging model is in `scores-<its name>/`. If problems were sampled until they had enough answers,
    counts are of the first round alone, in which all problems have equally many.
    """
    models = judging.inputs(at.run)
    stage = Stage(
        at.stage("score"),
        VERSION,
        reward_identity(judging.reward),
        {"problems": problems, "samples": samples, **models},
        at.seed if judging.draws else 0,
        resumable=True,
        estimate=replace(judging_estimate(judging, models), samples=samples.expected, disk_bytes=1_000_000),
        expected={SCORES: samples.expected},
    )

    def work(attempt: Path) -> Outcome:
        budget = budget_of(samples.path)
        told = {"problems": problems.path, "samples": samples.path, "output": attempt / SCORES}
        job = ScoreJob.model_validate(told | {"decided": budget is not None})
        whole = tally = score_jobs(at, attempt, [job], judging)[job.output]
        spent: dict[str, Spent] = {}
        if budget:
            tally, spent = spending(read_rows(Sample, samples.path), read_rows(Score, job.output), budget)
        record: dict[str, Any] = {
            "verdicts": dict(tally.verdicts),
            "truncated": tally.truncated,
            "tokens": tally.tokens,
        }
        rates = {name: model.rates(part_folder(job, name)) for name, model in judging.reward.models.items()}
        if budget:
            record |= {"first_round": budget.first, SPENT: {name: row.model_dump() for name, row in spent.items()}}
        write_json(attempt / TALLY, record | {name: told for name, told in rates.items() if told is not None})
        return Outcome(whole.samples, whole.samples, said=scored(tally) + spared(spent))

    result = at.run.execute(stage, work)
    if not at.run.planning:
        forget_ahead(at)
    return result


def scored(tally: Tally) -> str:
    """The log's summary of scored answers."""
    share = tally.verdicts["correct"] / tally.samples if tally.samples else 0.0
    ungraded = sum(tally.verdicts[verdict] for verdict in UNGRADED)
    words = [f"{counted(tally.samples, 'answer')} scored", f"{100 * share:.0f} % correct"]
    words += [f"{ungraded:,} could not be graded"] if ungraded else []
    words += [f"{tally.truncated:,} cut off at the token limit"] if tally.truncated else []
    return ", ".join(words)
