"""Scoring with rewards that are functions, shard by shard: in the process that asks, or as a program of several.

    python -m tasks.scorer CONFIG.json

As a program it may start while the samples are still being generated. It then scores each shard as it appears, until
it is told that there are no more. No more shards are taken up than there are processes: the others wait on disk.
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import pyarrow.parquet as pq

from data.combining import Combination
from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Sample, Score
from data.sandbox.isolation import Level
from data.scoring import Tally, combine_scores, score_samples
from data.storage import holds, parquet_files, read_rows, read_rows_of, write_rows
from models.config import Config, ScoreJob
from tasks.files import file_sha256, write_json

ALL, STOP = "all", "stop"  # what the file `until` says: that there are no more shards, or that none is wanted
POLL_SECONDS = 0.2


class ScorerProgram(Config):
    """Everything `tasks.scorer` is told.

    Attributes:
        functions: rewards that are applied, by name, with their graders.
        combination: how these and those of models make one; None: there is one reward, and it is a function.
        grader: what every score names.
        until: a file that appears when no more shards do. Scores are then named by their samples' content.
    """

    functions: dict[str, str]
    combination: Combination | None
    grader: str
    isolation: Level
    jobs: list[ScoreJob]
    workers: int
    until: Path | None = None


def part_folder(job: ScoreJob, part: str) -> Path:
    """Where the scores of one of several rewards are, a file for each shard."""
    return job.output.with_name(f".{job.output.name}-{part.replace(os.sep, '-')}")


def scores_file(program: ScorerProgram, job: ScoreJob, shard: Path) -> Path:
    """Where the scores of a shard of samples go."""
    return job.output / (shard.name if program.until is None else f"{file_sha256(shard)}.parquet")


def tally_file(scores: Path) -> Path:
    return scores.parent / f".{scores.stem}.json"


def is_scored(program: ScorerProgram, job: ScoreJob, shard: Path) -> bool:
    """Whether a shard's scores are all there."""
    scores = scores_file(program, job, shard)
    return tally_file(scores).exists() and holds(
        scores, "problem_id", pq.read_table(shard, columns=["problem_id"])[0].to_pylist()
    )


def read_tally(scores: Path) -> Tally:
    """What scoring a shard came to."""
    told = json.loads(tally_file(scores).read_text())
    return Tally(**told | {"verdicts": Counter(told["verdicts"])})


def take(known: Path, scores: Path) -> None:
    """Use scores that were made before."""
    shutil.copyfile(tally_file(known), tally_file(scores))
    shutil.copyfile(known, partial := scores.with_name(f".{scores.name}.partial"))
    partial.replace(scores)


def score_shard(program: ScorerProgram, job: ScoreJob, shard: Path) -> None:
    """Score the samples of a shard."""
    scores = scores_file(program, job, shard)
    tally = Tally()
    if program.combination is None:
        ((name, grader),) = program.functions.items()
        rows = _scored(job, shard, name, grader, tally)
    else:
        parts = {
            name: _scored(job, shard, name, program.functions[name], Tally())
            if name in program.functions
            else read_rows(Score, part_folder(job, name) / shard.name)
            for name in program.combination.parts
        }
        rows = combine_scores(read_rows(Sample, shard), parts, program.combination, program.grader, tally)
    write_rows(Score, scores, rows)
    write_json(tally_file(scores), vars(tally))


def _problem_ids(shard: Path) -> list[str]:
    ids: list[str] = pq.read_table(shard, columns=["problem_id"])["problem_id"].to_pylist()
    return ids


def _scored(job: ScoreJob, shard: Path, name: str, grader: str, tally: Tally) -> Iterator[Score]:
    problems = read_rows_of(Problem, job.problems, "id", set(_problem_ids(shard)))
    return score_samples(problems, read_rows(Sample, shard), load_reward(name), grader, tally)


def run(program: ScorerProgram) -> None:
    """Score every shard of every job that is not scored, each in one of several processes."""
    os.nice(10)  # whatever generates comes first
    taken: set[Path] = set()
    working: set[Future[None]] = set()
    with ProcessPoolExecutor(program.workers, initializer=prepare, initargs=(program,)) as pool:
        while True:
            said = ALL if program.until is None else _said(program.until)
            if said == STOP:
                pool.shutdown(cancel_futures=True)
                return
            new = [(job, shard) for job in program.jobs for shard in _shards(job) if shard not in taken]
            for job, shard in new:
                taken.add(shard)
                if is_scored(program, job, shard):
                    continue
                while len(working) >= program.workers:
                    done, working = wait(working, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                working.add(pool.submit(score_shard, program, job, shard))
            if said == ALL and not new:
                for future in working:
                    future.result()
                return
            time.sleep(0 if new else POLL_SECONDS)


def prepare(program: ScorerProgram) -> None:
    for name in program.functions:
        prepare_reward(load_reward(name), program.isolation)


def _said(until: Path) -> str | None:
    return until.read_text() if until.exists() else None


def _shards(job: ScoreJob) -> list[Path]:
    try:
        return parquet_files(job.samples)
    except FileNotFoundError:
        return []


if __name__ == "__main__":
    run(ScorerProgram.model_validate_json(Path(sys.argv[1]).read_text()))
