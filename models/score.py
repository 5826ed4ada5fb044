"""Scores with rewards that are functions, shard by shard: in the caller's process, or as a program with several.

    python -m models.score CONFIG.json

The program may start while samples are still being generated. It then scores each shard as it appears, until it gets
the message that there are no more. It takes at most one shard per process; the others wait on disk.
"""

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import pyarrow.parquet as pq

from data.combining import Combination
from data.files import file_sha256, write_json
from data.rewards import load_reward, prepare_reward
from data.rows import Problem, Sample, Score
from data.sandbox.isolation import Level
from data.scoring import Tally, combine_scores, score_samples
from data.storage import holds, parquet_files, read_rows, read_rows_of, write_rows
from models.config import ScoreJob
from models.config_base import Config

ALL, STOP = "all", "stop"  # contents of the file `until`: no more shards will come, or scoring should stop
POLL_SECONDS = 0.2


class ScorerProgram(Config):
    """Configuration of the program `models.score`.

    Attributes:
        graders: name and version of each reward, by name.
        models: the rewards that are models, whose scores already exist: see `part_folder`.
        combination: how to combine several rewards; None for a single one.
        until: a file that appears when no more shards will. Score files are then named by their samples' content.
    """

    graders: dict[str, str]
    models: list[str]
    combination: Combination | None
    isolation: Level
    jobs: list[ScoreJob]
    workers: int
    until: Path | None = None


def part_folder(job: ScoreJob, part: str) -> Path:
    """The folder of a model's scores and replies, one file for each shard."""
    return job.output.with_name(f"{job.output.name}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', part)}")


def scores_file(program: ScorerProgram, job: ScoreJob, shard: Path) -> Path:
    """The file for the scores of a shard of samples."""
    return job.output / (shard.name if program.until is None else f"{file_sha256(shard)}.parquet")


def tally_file(scores: Path) -> Path:
    return scores.parent / f".{scores.stem}.json"


def is_scored(program: ScorerProgram, job: ScoreJob, shard: Path) -> bool:
    """Whether a shard's scores are complete."""
    scores = scores_file(program, job, shard)
    return tally_file(scores).exists() and holds(
        scores, "problem_id", pq.read_table(shard, columns=["problem_id"])[0].to_pylist()
    )


def read_tally(scores: Path) -> Tally:
    """The tally of a scored shard."""
    told = json.loads(tally_file(scores).read_text())
    return Tally(**told | {"verdicts": Counter(told["verdicts"])})


def take(known: Path, scores: Path) -> None:
    """Reuse existing scores."""
    shutil.copyfile(tally_file(known), tally_file(scores))
    shutil.copyfile(known, partial := scores.with_name(f".{scores.name}.partial"))
    partial.replace(scores)


def score_shard(program: ScorerProgram, job: ScoreJob, shard: Path) -> None:
    """Score the samples of a shard."""
    scores = scores_file(program, job, shard)
    tally = Tally()
    counted = Tally() if program.combination else tally  # of several rewards, only the combination is counted
    parts = {
        name: _given(job, shard, name, counted)
        if name in program.models
        else _scored(job, shard, name, grader, counted)
        for name, grader in program.graders.items()
    }
    rows = next(iter(parts.values()))
    if program.combination is not None:
        grader = "+".join(program.graders.values())
        rows = combine_scores(read_rows(Sample, shard), parts, program.combination, grader, tally)
    keep_scores(scores, rows, tally)


def keep_scores(scores: Path, rows: Iterable[Score], tally: Tally) -> None:
    """Write a shard's scores, then their tally, which is complete once the rows have been consumed."""
    write_rows(Score, scores, rows)
    write_json(tally_file(scores), vars(tally))


def _given(job: ScoreJob, shard: Path, model: str, tally: Tally) -> Iterator[Score]:
    for sample, score in zip(
        read_rows(Sample, shard), read_rows(Score, part_folder(job, model) / shard.name), strict=True
    ):
        tally.count(sample, score)
        yield score


def _problem_ids(shard: Path) -> list[str]:
    ids: list[str] = pq.read_table(shard, columns=["problem_id"])["problem_id"].to_pylist()
    return ids


def _scored(job: ScoreJob, shard: Path, name: str, grader: str, tally: Tally) -> Iterator[Score]:
    problems = read_rows_of(Problem, job.problems, "id", set(_problem_ids(shard)))
    return score_samples(problems, read_rows(Sample, shard), load_reward(name), grader, tally)


def run(program: ScorerProgram) -> None:
    """Score every shard that has no scores yet, in several processes."""
    os.nice(10)  # generation has priority
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
    for name in program.graders.keys() - set(program.models):
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
