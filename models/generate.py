"""Generation with vLLM: token ids in, samples out, in shards that appear whole or not at all.

    python -m models.generate CONFIG.json

Each request has a seed of its own, made from the stage's seed and the problem's id, so a shard comes out the same
whatever ran before it. A shard that is already there is not generated again.
"""

import gc
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from data.render import check_room, context_length, prompt_token_ids, stop_token_ids
from data.rows import Problem, Sample
from data.storage import count_rows, holds, read_rows, write_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram, ModelCode, SamplingConfig
from models.loading import engine_arguments, load_config, load_tokenizer
from models.process import end, fail_plainly, keep_imports
from models.progress import Progress


@dataclass(frozen=True)
class Shard:
    """The next few problems of a job, and the file their samples go to."""

    job: GenerateJob
    problems: list[Problem]
    path: Path


def plan_shards(job: GenerateJob) -> Iterator[Shard]:
    """Cut a job's problems into shards of at most `shard_size` requests."""
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
    """The shards of a job that are still to be made. Files of any other content are removed.

    Such are shards that a power cut tore, and those of an earlier attempt that cut the problems otherwise.
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


def generate(program: GenerateProgram) -> None:
    """Do every job whose shards are not all there yet. The engine starts only if something is left to do."""
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
    limit, seed = min(context, longest), jobs[0].seed
    dtype, code = jobs[0].sampling.dtype, program.model_code
    engine = start_engine(program.policy, program.engine, dtype, limit, seed, code)

    stop = stop_token_ids(tokenizer)
    progress = Progress("generate", total, "sample", done=total - left)
    meter = Meter(progress)
    for shard in missing:
        requests = [prompts[p.id] for p in shard.problems]
        parameters = [request_parameters(shard.job, p.id, stop) for p in shard.problems]
        outputs = run_requests(engine, requests, parameters, meter)
        write_rows(Sample, shard.path, to_samples(shard, outputs, program.policy_digest))
    print(f"Generated {left:,} samples at {meter.tokens / progress.elapsed:,.0f} tokens/s", flush=True)


class Meter:
    """Counts finished samples and tokens while the engine works."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done, self.tokens = progress, progress.initial, 0

    def add(self, samples: int, tokens: int) -> None:
        self.done += samples
        self.tokens += tokens
        self.progress.update(self.done, f"{self.tokens / self.progress.elapsed:,.0f} tokens/s")


def request_parameters(job: GenerateJob, problem: str, stop: list[int]) -> Any:
    """What vLLM is told of one problem.

    Args:
        stop: ids that end an answer, besides those that generation_config.json names. vLLM keeps the one that it stops
            at as the last of the answer's ids, and leaves it out of the text.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = job.sampling
    return SamplingParams(
        n=sampling.samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop_token_ids=stop,
        seed=request_seed(job.seed, problem) if sampling.temperature > 0 else None,
        skip_special_tokens=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def run_requests(engine: Any, prompts: list[list[int]], parameters: list[Any], meter: Meter | None = None) -> list[Any]:
    """Answer token-id prompts with vLLM's engine, in the order given."""
    for number, (ids, parameter) in enumerate(zip(prompts, parameters, strict=True)):
        engine.add_request(str(number), {"prompt_token_ids": ids}, parameter)
    finished: dict[int, Any] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                finished[int(output.request_id)] = output
                if meter:
                    meter.add(len(output.outputs), sum(len(o.token_ids) for o in output.outputs))
    return [finished[number] for number in range(len(prompts))]


def to_samples(shard: Shard, outputs: Iterable[Any], policy: str) -> Iterator[Sample]:
    sampling = shard.job.sampling
    digest = sampling_digest(sampling)
    for problem, output in zip(shard.problems, outputs, strict=True):
        seed = request_seed(shard.job.seed, problem.id)
        for completion in sorted(output.outputs, key=lambda o: o.index):
            yield Sample(
                problem_id=problem.id,
                index=completion.index,
                text=completion.text,
                token_ids=list(completion.token_ids),
                finish_reason=completion.finish_reason,
                policy=policy,
                seed=seed + completion.index,
                sampling=digest,
            )


def start_engine(
    policy: Path,
    engine: EngineConfig,
    dtype: str,
    max_model_len: int,
    seed: int,
    code: ModelCode = "refuse",
    **arguments: Any,
) -> Any:
    """A vLLM engine for `policy`; on the CPU and for one device it lives in this process.

    Args:
        policy: folder of the model and its tokenizer.
        engine: where and how fast it runs.
        dtype: number format of the weights.
        max_model_len: longest prompt and answer together, in tokens.
        seed: of the engine; requests have their own.
        code: whether Python code in the folder may run.
        arguments: further ones of vLLM's `EngineArgs`.
    """
    import torch

    on_cpu = not torch.cuda.is_available()
    if engine.tensor_parallel_size == 1:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if on_cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(engine.cpu_kv_cache_gib))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    gc.disable()  # or vLLM would ask for collections of all that it imports
    from vllm import EngineArgs, LLMEngine

    keep_imports()

    told = EngineArgs(
        model=str(policy),
        **engine_arguments(code),
        dtype=dtype,
        tensor_parallel_size=engine.tensor_parallel_size,
        max_model_len=max_model_len,
        max_num_seqs=engine.max_num_seqs,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=on_cpu if engine.enforce_eager is None else engine.enforce_eager,
        seed=seed % 2**31,
        # On the CPU, seeded sampling fails when a prefill is cut in two ("CPU Generator does not use offset").
        enable_chunked_prefill=False if on_cpu else None,
        max_num_batched_tokens=max(8192, max_model_len) if on_cpu else None,
        generation_config="vllm",
        disable_log_stats=True,
        **arguments,
    )
    return LLMEngine.from_engine_args(told)


def leave() -> NoReturn:
    """End a program that may have started an engine."""
    if "vllm" in sys.modules:
        from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()  # or a file would stay in the system's temp folder
        destroy_distributed_environment()
    end()


def main() -> None:
    fail_plainly()
    generate(GenerateProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
