"""The shards of a generation job: which are missing, the engine's requests for them, and the rows written to them."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from data.files import file_sha256
from data.rows import Problem, Sample
from data.storage import column_of, holds, read_rows
from models.config import GenerateJob, SamplingConfig
from models.engine import Completion, Request


@dataclass(frozen=True)
class Shard:
    """The next few problems of a job, and the file for their samples."""

    job: GenerateJob
    problems: list[Problem]
    path: Path


def plan_shards(job: GenerateJob) -> Iterator[Shard]:
    """Split a job's problems into shards of at most `shard_size` requests."""
    per_shard = max(1, job.shard_size // job.sampling.samples)
    batch: list[Problem] = []
    number = 0
    for problem in read_rows(Problem, job.problems):
        batch.append(problem)
        if len(batch) == per_shard:
            yield Shard(job, batch, shard_path(job.output, number))
            batch, number = [], number + 1
    if batch:
        yield Shard(job, batch, shard_path(job.output, number))


def missing_shards(job: GenerateJob) -> list[Shard]:
    """The missing shards of a job. Files with other content are removed.

    Those are shards torn by a power failure, and shards of an earlier attempt that split the problems differently.
    """
    shards = list(plan_shards(job))
    missing = [shard for shard in shards if not _is_whole(shard)]
    kept = {shard.path for shard in shards} - {shard.path for shard in missing}
    for file in set(job.output.glob("*.parquet")) - kept:
        file.unlink()
    return missing


def _is_whole(shard: Shard) -> bool:
    samples, ids = shard.job.sampling.samples, [problem.id for problem in shard.problems]
    if shard.job.until is None:
        return holds(shard.path, "problem_id", [problem for problem in ids for _ in range(samples)])
    there = [(problem, len(list(rows))) for problem, rows in groupby(column_of(shard.path, "problem_id") or [])]
    if [problem for problem, _ in there] != ids or any(answers > samples for _, answers in there):
        return False
    return decided_by(shard).exists()  # a kill came between them otherwise


def decided_by(shard: Shard) -> Path:
    """The scores that decided how many answers a written shard has."""
    assert shard.job.until is not None
    return shard.job.until.scores / f"{file_sha256(shard.path)}.parquet"


def shard_path(output: Path, number: int) -> Path:
    return output / f"{number:06d}.parquet"


def request_seed(seed: int, problem: str) -> int:
    """Seed of one problem's request, 31 bits: sample i of the request uses this plus i."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem}".encode()).digest()[:4], "big") >> 1


def sampling_digest(sampling: SamplingConfig) -> str:
    return hashlib.sha256(json.dumps(sampling.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def engine_request(job: GenerateJob, problem: str, prompt: list[int], stop: list[int], begin: int = 0) -> Request:
    """The engine's request for one problem's answers, from number `begin` on to the last.

    An answer's seed depends on its number, not on the request that asks for it.
    """
    sampling = job.sampling
    return Request(
        prompt,
        sampling.samples - begin,
        sampling.temperature,
        sampling.max_tokens,
        request_seed(job.seed, problem) + begin if sampling.temperature > 0 else None,
        sampling.top_p,
        sampling.top_k,
        tuple(stop),
    )


def to_samples(
    job: GenerateJob, problem: Problem, answers: Iterable[Completion], policy: str, begin: int = 0
) -> Iterator[Sample]:
    """The rows of one problem's answers, which are numbered from `begin` on."""
    digest, seed = sampling_digest(job.sampling), request_seed(job.seed, problem.id)
    for index, answer in enumerate(answers, start=begin):
        yield Sample(
            problem_id=problem.id,
            index=index,
            text=answer.text,
            token_ids=answer.token_ids,
            finish_reason=answer.finish_reason,
            policy=policy,
            seed=seed + index,
            sampling=digest,
        )
