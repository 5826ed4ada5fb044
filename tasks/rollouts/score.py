"""The stage `score`: rewards are applied to samples."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.config import EngineConfig, ScoreJob
from models.judge import RATES
from tasks.rollouts.rewards import (
    JUDGED,
    RewardConfig,
    forget_ahead,
    judging_estimate,
    reward_identity,
    reward_inputs,
    score_jobs,
)
from tasks.rollouts.scorer import part_folder
from tasks.stage.contract import Artifact, Outcome, Stage
from tasks.stage.files import write_json
from tasks.stage.run import Result, Run

VERSION = 2  # scores are in a folder
SCORES, TALLY = "scores", "tally.json"


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
        VERSION,
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
