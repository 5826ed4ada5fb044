"""Long-tailed answers: one continuous batch over all shards against shard after shard and bare `vllm.LLM.generate`.

Every request has a length of its own, from a fixed list: the model writes exactly so many tokens. All ways answer the
same requests; the first two also write the shards.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, show
from benchmarks.programs import sampled, write_program
from data import arithmetic
from data.render import prompt_token_ids
from data.rows import Problem
from data.storage import read_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram
from models.loading import load_tokenizer
from tasks.policies.shipped import BASES, POLICY
from tasks.stage.environment import SHARED_CPU, child_environment

REQUESTS, SHARD, SEQUENCES, REPEATS = 6000, 512, 256, 2
LONGEST, MEAN, SIGMA = 600, 60, 1.2  # of the lengths: log-normal, in tokens
WAYS = {
    "batch": "the stage's program: one continuous batch",
    "shards": "the same, shard after shard",
    "bare": "vllm.LLM.generate, bare",
}


def lengths() -> list[int]:
    """How many tokens each request gets."""
    rng = random.Random(0)
    mean_of_log = -(SIGMA**2) / 2
    return [min(LONGEST, max(1, round(MEAN * rng.lognormvariate(mean_of_log, SIGMA)))) for _ in range(REQUESTS)]


def main() -> None:
    tokens = sum(lengths())
    with tempfile.TemporaryDirectory() as name:
        program = _program(Path(name))
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(REPEATS):  # alternating, so that a busy machine slows all equally
            for way, found in rates.items():
                shutil.rmtree(program.with_suffix(""), ignore_errors=True)
                command = [sys.executable, "-m", "benchmarks.batching", way, str(program)]
                seconds = float(run_measured(command, child_environment(SHARED_CPU)).output.split()[-1])
                found.append(tokens / seconds)
    best = {way: max(found) for way, found in rates.items()}
    rows = [[WAYS[way], f"{rate:,.0f}", f"{rate / best['bare']:.3f}"] for way, rate in best.items()]
    told = f"{REQUESTS:,} requests of {tokens / REQUESTS:.0f} tokens on average, at most {max(lengths())}"
    show(f"{told}, shards of {SHARD}, best of {REPEATS}", ["what", "tokens per s", "of bare"], rows)


def _program(folder: Path) -> Path:
    problems = [p for p in arithmetic.embedded_problems(0) if p.split in ("train", "demonstration")][:REQUESTS]
    engine = EngineConfig(max_num_seqs=SEQUENCES, shard_size=SHARD)
    sampling = sampled(1, temperature=1.0, max_tokens=LONGEST)
    write_program(folder / "program.json", BASES / "half-bare" / POLICY, problems, sampling, engine)
    return folder / "program.json"


def measure(way: str, file: Path) -> None:
    """Print the seconds of one way, without the engine's start."""
    import models.engine.vllm
    import models.generate
    import models.rounds
    from models.engine import Completion, Request

    program = GenerateProgram.model_validate(json.loads(file.read_text()))
    ids = {p.id: number for number, p in enumerate(read_rows(Problem, program.jobs[0].problems))}
    exact_length = dict(zip(ids, lengths(), strict=True))
    parameters, ask = models.engine.vllm.sampling_parameters, models.rounds.engine_request

    def of_its_length(job: GenerateJob, problem: str, prompt: list[int], stop: list[int], begin: int = 0) -> Request:
        request = ask(job, problem, prompt, [])
        return Request(**vars(request) | {"max_tokens": exact_length[problem]})

    def never_ending(request: Request) -> Any:
        told = parameters(request)
        told.ignore_eos = True
        return told

    begun: list[float] = []

    class Timed(models.engine.vllm.VLLM):
        """Starts the clock with the first request; by shards, it ends one before it begins the next."""

        def stream(
            self, requests: Iterable[Request | None], meter: Any = None
        ) -> Iterator[tuple[int, list[Completion]]]:
            begun.append(time.perf_counter())
            if way == "batch":
                yield from super().stream(requests, meter)
                return
            coming, first = list(requests), 0
            while shard := coming[first : first + SHARD]:
                for number, answers in super().stream(shard, meter):
                    yield first + number, answers
                first += SHARD

    models.rounds.engine_request = of_its_length
    models.engine.vllm.sampling_parameters = never_ending
    models.generate.start = Timed  # type: ignore[assignment]
    if way == "bare":
        print(_bare(program, of_its_length, never_ending))
    else:
        models.generate.generate(program)
        print(time.perf_counter() - begun[0])


def _bare(program: GenerateProgram, request: Any, parameters: Any) -> float:
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1")
    from vllm import LLM

    job, tokenizer = program.jobs[0], load_tokenizer(program.policy, program.model_code)
    prompts = {p.id: prompt_token_ids(tokenizer, p.messages) for p in read_rows(Problem, job.problems)}
    llm = LLM(
        model=str(program.policy),
        dtype="float32",
        max_model_len=max(map(len, prompts.values())) + LONGEST,
        max_num_seqs=SEQUENCES,
        enforce_eager=True,
        enable_chunked_prefill=False,
        max_num_batched_tokens=8192,
        generation_config="vllm",
    )
    told = [parameters(request(job, key, ids, [])) for key, ids in prompts.items()]
    begin = time.perf_counter()
    llm.generate([{"prompt_token_ids": ids} for ids in prompts.values()], told, use_tqdm=False)
    return time.perf_counter() - begin


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
