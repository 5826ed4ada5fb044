"""Generation: token ids in, samples out, in shards written atomically.

    python -m models.generate CONFIG.json

All shards share one continuous batch, and each is written once its last answer is there. Each request has its own seed,
made from the stage's seed and the problem's id. An existing shard is not generated again.
"""

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data.render import check_room, context_length, prompt_token_ids, stop_token_ids
from data.rows import Problem, Sample
from data.storage import count_rows, holds, read_rows, write_rows
from data.wording import counted
from models.config import GenerateJob, GenerateProgram, SamplingConfig
from models.engine import Completion, Request, Served, start
from models.engine.meter import Meter
from models.engine.vllm import leave
from models.loading import load_config, load_tokenizer
from models.process import fail_plainly
from models.progress import Progress


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
    ids = [problem.id for problem in shard.problems for _ in range(shard.job.sampling.samples)]
    return holds(shard.path, "problem_id", ids)


def shard_path(output: Path, number: int) -> Path:
    return output / f"{number:06d}.parquet"


def request_seed(seed: int, problem: str) -> int:
    """Seed of one problem's request, 31 bits: sample i of the request uses this plus i."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{problem}".encode()).digest()[:4], "big") >> 1


def sampling_digest(sampling: SamplingConfig) -> str:
    return hashlib.sha256(json.dumps(sampling.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()[:16]


def generate(program: GenerateProgram, journal: Path | None = None) -> None:
    """Do every job with missing shards. The engine starts only if something is left to do.

    Args:
        journal: where to note the tokens per second.
    """
    jobs = program.jobs
    total = sum(count_rows(job.problems) * job.sampling.samples for job in jobs)
    missing = [shard for job in jobs for shard in missing_shards(job)]
    left = sum(len(shard.problems) * shard.job.sampling.samples for shard in missing)
    if not missing:
        return
    for job in jobs:
        job.output.mkdir(parents=True, exist_ok=True)

    tokenizer = load_tokenizer(program.policy, program.model_code)
    prompts = {p.id: prompt_token_ids(tokenizer, p.messages) for shard in missing for p in shard.problems}
    context = program.engine.max_model_len or context_length(load_config(program.policy, program.model_code))
    for shard in missing:
        for problem in shard.problems:
            check_room(len(prompts[problem.id]), shard.job.sampling.max_tokens, context, problem.id)
    longest = max(len(ids) for ids in prompts.values()) + max(job.sampling.max_tokens for job in jobs)
    dtype, limit = jobs[0].sampling.dtype, min(context, longest)
    engine = start(Served(program.policy, dtype, limit, jobs[0].seed, program.model_code), program.engine)

    stop = stop_token_ids(tokenizer)
    progress = Progress("generate", total, "sample", done=total - left)
    meter = Meter(progress, journal)
    asked = [(shard, place) for shard in missing for place in range(len(shard.problems))]

    def requests() -> Iterator[Request]:
        for shard, place in asked:
            problem = shard.problems[place]
            yield engine_request(shard.job, problem.id, prompts[problem.id], stop)

    unwritten: dict[Path, dict[int, list[Completion]]] = defaultdict(dict)
    for number, answers in engine.stream(requests(), meter):
        shard, place = asked[number]
        unwritten[shard.path][place] = answers
        if len(unwritten[shard.path]) == len(shard.problems):
            complete = unwritten.pop(shard.path)
            in_order = (complete[place] for place in range(len(complete)))
            write_rows(Sample, shard.path, to_samples(shard, in_order, program.policy_digest))
    print(f"{counted(left, 'answer')} at {meter.tokens / progress.elapsed:,.0f} tokens/s", flush=True)


def engine_request(job: GenerateJob, problem: str, prompt: list[int], stop: list[int]) -> Request:
    """The engine's request for one problem."""
    sampling = job.sampling
    return Request(
        prompt,
        sampling.samples,
        sampling.temperature,
        sampling.max_tokens,
        request_seed(job.seed, problem) if sampling.temperature > 0 else None,
        sampling.top_p,
        sampling.top_k,
        tuple(stop),
    )


def to_samples(shard: Shard, answers: Iterable[list[Completion]], policy: str) -> Iterator[Sample]:
    sampling = shard.job.sampling
    digest = sampling_digest(sampling)
    for problem, drawn in zip(shard.problems, answers, strict=True):
        seed = request_seed(shard.job.seed, problem.id)
        for index, answer in enumerate(drawn):
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


def main() -> None:
    fail_plainly()
    config = Path(sys.argv[1])
    generate(GenerateProgram.model_validate_json(config.read_text()), config.with_name("metrics.jsonl"))
    leave()


if __name__ == "__main__":
    main()
