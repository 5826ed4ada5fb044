"""Scoring samples with every configured reward: models in their own programs, functions here or in workers."""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pyarrow.parquet as pq

from data.files import file_sha256
from data.rewards import RewardError, prepare_reward
from data.scoring import Tally, TooManyErrorsError, check_errors
from data.storage import holds, parquet_files
from models import score as scorer
from models.config import ScoreJob
from models.score import (
    ScorerProgram,
    is_scored,
    part_folder,
    read_tally,
    score_shard,
    scores_file,
    take,
    tally_file,
)
from tasks.rollouts.rewards import Judging, RewardConfig, graders, reward_identity
from tasks.stage.contract import SCORER
from tasks.stage.logs import run_logger
from tasks.stage.process import ChildError
from tasks.stage.run import Place

SOON_SECONDS = 2.0  # about what it takes to start processes
AHEAD = ".scored"  # scores made while answers were still being generated, by content


def score_jobs(at: Place, attempt: Path, jobs: list[ScoreJob], judging: Judging) -> dict[Path, Tally]:
    """Score the samples of all jobs; shards that an earlier attempt finished, or that were scored ahead, are kept.

    If the reward failed on a sample while scoring ahead, or too often in total, that shard is scored again.

    Returns:
        The tally of each job, by its output.

    Raises:
        RewardError: a reward does not work here.
        TooManyErrorsError: a reward failed too often.
        ChildError: a scoring program failed.
    """
    run, config = at.run, judging.reward
    for reward in config.functions.values():
        prepare_reward(reward, config.isolation)
    for name, model in config.models.items():
        parts = _part_jobs(jobs, name)
        model.score(at, attempt, parts, judging.engine)
        for job in parts:
            _require_scores(name, job)
    program = _program(config, jobs)
    missing = []
    for job in jobs:
        job.output.mkdir(parents=True, exist_ok=True)
        for shard in parquet_files(job.samples):
            if is_scored(program, job, shard):
                continue
            known = scores_ahead(at, config) / f"{file_sha256(shard)}.parquet"
            there = known.exists() and tally_file(known).exists()
            if there and (job.decided or not read_tally(known).errors):
                take(known, scores_file(program, job, shard))
            else:
                missing.append((job, shard))
    start = time.monotonic()
    while missing:
        takes_long = config.workers is not None or time.monotonic() - start > SOON_SECONDS
        if takes_long and min(config.processes, len(missing)) > 1:
            command = scoring_program(config, jobs, attempt / SCORER)
            run.start(command, attempt / "log.txt", run.child_lock, run_logger())
            break
        score_shard(program, *missing.pop(0))
    return {job.output: _counted(program, job, config.max_error_share) for job in jobs}


@contextmanager
def scoring_ahead(at: Place, job: ScoreJob, config: RewardConfig | None) -> Iterator[None]:
    """Score the shards of a job as they appear while the block runs, if the configuration asks for it.

    The stage `score` then reuses them. Errors are only logged, because that stage tries again.

    Args:
        job: its output is ignored.
    """
    if config is None or not config.runs_ahead:
        yield
        return
    folder = scores_ahead(at, config)
    folder.mkdir(parents=True, exist_ok=True)
    until = folder / ".until"
    until.unlink(missing_ok=True)
    job = job.model_copy(update={"output": folder})
    command, logger = scoring_program(config, [job], folder / f".{SCORER}", until), run_logger()

    def work() -> None:
        try:
            at.run.start(command, folder / ".log.txt", at.run.scorer_lock, logger)
        except ChildError as error:
            logger.warning("Scoring during generation has stopped; the answers are scored afterward. %s", error)

    thread = Thread(target=work)
    thread.start()
    said = scorer.STOP
    try:
        yield
        said = scorer.ALL
    finally:
        until.write_text(said)
        thread.join()


def scoring_program(config: RewardConfig, jobs: list[ScoreJob], file: Path, until: Path | None = None) -> list[str]:
    """Write the scoring program's configuration to a file; return the command that runs it."""
    file.write_text(_program(config, jobs, until).model_dump_json(indent=2))
    return [sys.executable, "-m", "models.score", str(file)]


def forget_ahead(at: Place) -> None:
    """Remove the scores made ahead for a finished stage."""
    for folder in at.folder.glob(f"{AHEAD}-*"):
        shutil.rmtree(folder)


def scores_ahead(at: Place, config: RewardConfig) -> Path:
    """The folder of scores made ahead, for all stages of an iteration. Each reward has its own folder."""
    identity = json.dumps(reward_identity(config), sort_keys=True)
    return at.folder / f"{AHEAD}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _part_jobs(jobs: list[ScoreJob], part: str) -> list[ScoreJob]:
    asked = [job.model_copy(update={"output": part_folder(job, part)}) for job in jobs]
    for job in asked:
        job.output.mkdir(parents=True, exist_ok=True)
    return asked


def _require_scores(name: str, job: ScoreJob) -> None:
    """Check that a reward model scored every sample, in order.

    Raises:
        RewardError: it did not.
    """
    for shard in parquet_files(job.samples):
        samples = pq.read_table(shard, columns=["problem_id"])["problem_id"].to_pylist()
        if not holds(job.output / shard.name, "problem_id", samples):
            raise RewardError(
                f"The reward {name} did not write the scores of the {len(samples):,} samples in {shard}, in the same "
                f"order, to {job.output / shard.name}.",
                what_next="Fix its `score`, and run the same command again: the samples are kept.",
            )


def _program(config: RewardConfig, jobs: list[ScoreJob], until: Path | None = None) -> ScorerProgram:
    return ScorerProgram(
        graders=graders(config),
        models=list(config.models),
        combination=config.combination,
        isolation=config.isolation,
        jobs=jobs,
        workers=config.processes,
        until=until,
    )


def _counted(program: ScorerProgram, job: ScoreJob, max_error_share: float) -> Tally:
    whole = Tally()
    files = [scores_file(program, job, shard) for shard in parquet_files(job.samples)]
    tallies = {file: read_tally(file) for file in files}
    for tally in tallies.values():
        whole.add(tally)
    try:
        check_errors(whole, max_error_share)
    except TooManyErrorsError:
        # The user fixes the reward and runs the same command again; shards with errors must then be scored again.
        for file, tally in tallies.items():
            if tally.errors:
                tally_file(file).unlink()
        raise
    for file in files:
        tally_file(file).unlink()
    return whole
