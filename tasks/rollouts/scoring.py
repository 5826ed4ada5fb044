"""Scoring samples with every reward that is asked for: models in programs of their own, functions here or beside."""

import hashlib
import json
import shutil
import sys
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

AHEAD = ".scored"  # what was scored while answers were still being generated, by content


def score_jobs(at: Place, attempt: Path, jobs: list[ScoreJob], judging: Judging) -> dict[Path, Tally]:
    """Score the samples of all jobs; shards that an earlier attempt finished, or that were scored ahead, are kept.

    Where the reward failed on a sample ahead, or too often in all, that shard is scored again.

    Returns:
        What each job came to, by its output.

    Raises:
        RewardError: a reward cannot work here.
        TooManyErrorsError: a reward failed too often.
        ChildError: a program that scores failed.
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
            known = _ahead(at, config) / f"{file_sha256(shard)}.parquet"
            if known.exists() and tally_file(known).exists() and not read_tally(known).errors:
                take(known, scores_file(program, job, shard))
            else:
                missing.append((job, shard))
    if config.workers > 1 and len(missing) > 1:
        run.start(scoring_program(config, jobs, attempt / SCORER), attempt / "log.txt", run.child_lock, run_logger())
    else:
        for job, shard in missing:
            score_shard(program, job, shard)
    return {job.output: _counted(program, job, config.max_error_share) for job in jobs}


@contextmanager
def scoring_ahead(at: Place, job: ScoreJob, config: RewardConfig | None) -> Iterator[None]:
    """Score the shards of a job, if the configuration asks for it, as they appear while the block runs.

    The stage that scores then finds them. What goes wrong is only logged: that stage comes to it again.

    Args:
        job: its output does not matter.
    """
    if config is None or not config.runs_ahead:
        yield
        return
    folder = _ahead(at, config)
    folder.mkdir(parents=True, exist_ok=True)
    until = folder / ".until"
    until.unlink(missing_ok=True)
    job = job.model_copy(update={"output": folder})
    command, logger = scoring_program(config, [job], folder / f".{SCORER}", until), run_logger()

    def work() -> None:
        try:
            at.run.start(command, folder / ".log.txt", at.run.scorer_lock, logger)
        except ChildError as error:
            logger.warning("Scoring while generating has stopped; the answers are scored afterwards. %s", error)

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
    """Write down in a file what the scoring program is told; return the command that runs it."""
    file.write_text(_program(config, jobs, until).model_dump_json(indent=2))
    return [sys.executable, "-m", "models.score", str(file)]


def forget_ahead(at: Place) -> None:
    """Remove what was scored ahead for a stage that is finished."""
    for folder in at.folder.glob(f"{AHEAD}-*"):
        shutil.rmtree(folder)


def _ahead(at: Place, config: RewardConfig) -> Path:
    """Where scores made ahead are, for all stages of an iteration: those of other rewards are in other folders."""
    identity = json.dumps(reward_identity(config), sort_keys=True)
    return at.folder / f"{AHEAD}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def _part_jobs(jobs: list[ScoreJob], part: str) -> list[ScoreJob]:
    asked = [job.model_copy(update={"output": part_folder(job, part)}) for job in jobs]
    for job in asked:
        job.output.mkdir(parents=True, exist_ok=True)
    return asked


def _require_scores(name: str, job: ScoreJob) -> None:
    """See that a reward that is a model scored every sample, in their order.

    Raises:
        RewardError: it did not.
    """
    for shard in parquet_files(job.samples):
        samples = pq.read_table(shard, columns=["problem_id"])["problem_id"].to_pylist()
        if not holds(job.output / shard.name, "problem_id", samples):
            raise RewardError(
                f"The reward {name} left no scores of the {len(samples):,} samples in {shard}, in their order, in "
                f"{job.output / shard.name}.",
                what_next="Mend its `score`, and run the same command again: the samples are kept.",
            )


def _program(config: RewardConfig, jobs: list[ScoreJob], until: Path | None = None) -> ScorerProgram:
    return ScorerProgram(
        graders=graders(config),
        models=list(config.models),
        combination=config.combination,
        isolation=config.isolation,
        jobs=jobs,
        workers=config.workers,
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
        # Whoever mends the reward runs the same command again, and what it failed on is then no longer there.
        for file, tally in tallies.items():
            if tally.errors:
                tally_file(file).unlink()
        raise
    for file in files:
        tally_file(file).unlink()
    return whole
