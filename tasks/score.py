"""The stages `score` and `select`: rewards are applied to samples, and what is trained on is chosen. In process."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from data.errors import RunFailedError
from data.rows import Example, Problem, Sample, Score
from data.selection import select_examples
from data.storage import read_rows, write_rows
from models.config import Config, EngineConfig, ScoreJob
from models.judge import RATES
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.files import write_json
from tasks.rewards import (
    JUDGED,
    RewardConfig,
    forget_ahead,
    judging_estimate,
    reward_identity,
    reward_inputs,
    score_jobs,
)
from tasks.run import Result, Run
from tasks.scorer import part_folder

VERSION = 1
SCORE_VERSION = 2  # scores are in a folder
SCORES, SELECTION, TALLY = "scores", "selection.json", "tally.json"


class SelectConfig(Config):
    """Which samples are trained on."""

    min_reward: Annotated[float, Field(description="Keep samples of at least this reward.")] = 1.0
    max_per_problem: Annotated[int, Field(ge=1, description="Keep at most this many per problem.")] = 10


class NothingKeptError(RunFailedError):
    """No sample was good enough to be trained on."""


def score(
    run: Run,
    name: str,
    problems: Artifact,
    samples: Artifact,
    config: RewardConfig,
    engine: EngineConfig,
    seed: int,
) -> Result:
    """Score every sample into `scores/`, a file for each shard of samples; counts by verdict go to `tally.json`.

    What a model that judges said is in `scores-judge/`.
    """
    models = reward_inputs(run, config)
    stage = Stage(
        name,
        SCORE_VERSION,
        reward_identity(config),
        {"problems": problems, "samples": samples, **models},
        seed if config.judged else 0,
        resumable=True,
        estimate=replace(judging_estimate(config, models, engine), disk_bytes=1_000_000),
    )

    def work(attempt: Path) -> Outcome:
        job = ScoreJob(problems=problems.path, samples=samples.path, output=attempt / SCORES)
        tally = score_jobs(run, attempt, [job], config, engine, seed, name)[job.output]
        record: dict[str, Any] = {
            "verdicts": dict(tally.verdicts),
            "truncated": tally.truncated,
            "tokens": tally.tokens,
        }
        if config.judged:
            record["judge"] = json.loads((part_folder(job, JUDGED) / RATES).read_text())
        write_json(attempt / TALLY, record)
        return Outcome(tally.samples, tally.samples)

    result = run.execute(stage, work)
    if not run.planning:
        forget_ahead(run, name)
    return result


def select(
    run: Run, name: str, problems: Artifact, samples: Artifact, scores: Artifact, config: SelectConfig
) -> Result:
    """Choose what is trained on into `examples.parquet`; counts by reason go to `selection.json`.

    Raises:
        NothingKeptError: there is nothing to train on.
    """
    inputs = {"problems": problems, "samples": samples, "scores": scores}
    stage = Stage(name, VERSION, config.model_dump(mode="json"), inputs, estimate=Estimate(disk_bytes=1_000_000))

    def work(attempt: Path) -> Outcome:
        counts: Counter[str] = Counter()
        rows = select_examples(
            read_rows(Problem, problems.path),
            read_rows(Sample, samples.path),
            read_rows(Score, scores.path),
            config.min_reward,
            config.max_per_problem,
            counts,
        )
        kept = write_rows(Example, attempt / "examples.parquet", rows)
        if not kept:
            raise nothing_kept(counts)
        write_json(attempt / SELECTION, dict(counts))
        dropped = {reason: n for reason, n in counts.items() if reason not in ("samples", "kept")}
        return Outcome(counts["samples"], kept, dropped)

    return run.execute(stage, work)


def nothing_kept(counts: Counter[str]) -> NothingKeptError:
    """The error for samples of which none can be trained on, with the reasons and what to change."""
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common() if reason not in ("samples", "kept"))
    return NothingKeptError(
        f"None of the {counts['samples']:,} samples can be trained on ({reasons}). Nothing was trained; the samples "
        "and scores are kept.",
        "The problems are too hard for this policy, or its answers do not end as the reward expects.",
        "Use a stronger --model, easier problems, more generate.samples, a larger generate.max_tokens if answers are "
        "truncated, or --few_shot examples that show the form of an answer.",
    )
