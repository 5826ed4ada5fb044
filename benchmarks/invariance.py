"""Whether an answer depends on what shares its batch: the same requests in groups of several sizes and orders."""

import random
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.measure import show
from data.arithmetic import embedded_problems
from data.render import prompt_token_ids, stop_token_ids
from models.config import EngineConfig, GenerateJob, SamplingConfig
from models.engine import Request, Served, answers_in_order, start
from models.engine.vllm import leave
from models.loading import load_tokenizer
from models.shards import engine_request
from tasks.policies.shipped import BASES, POLICY
from tasks.stage.environment import SHARED_CPU, child_environment

PROBLEMS, SAMPLES, FEW = 600, 4, 60
GROUPS = {"once more": PROBLEMS, "in groups of 16": 16, "in groups of 7": 7, "shuffled": PROBLEMS, "one by one": 1}
BASE = BASES / "half-bare" / POLICY


def main() -> None:
    rows = []
    for dtype in ("float32", "bfloat16"):
        command = [sys.executable, "-m", "benchmarks.invariance", dtype]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env=child_environment() | SHARED_CPU
        ).stdout
        rows += [line.split(" | ") for line in done.splitlines() if line.startswith(dtype)]
        print(rows[-1], flush=True)
    show("Answers that differ from those of one batch of all", ["dtype", "asked for", "differ", "of"], rows)


def measure(dtype: str) -> None:
    """Print a line per way of asking."""
    requests = _requests(dtype)
    served = Served(BASE, dtype, max(len(request.prompt) for request in requests) + requests[0].max_tokens, seed=1)
    engine = start(served, EngineConfig(max_num_seqs=256))

    def asked(order: Sequence[int], size: int) -> dict[int, list[tuple[int, ...]]]:
        found = {}
        for first in range(0, len(order), size):
            group = order[first : first + size]
            for number, drawn in zip(group, answers_in_order(engine, [requests[n] for n in group]), strict=True):
                found[number] = [tuple(answer.token_ids) for answer in drawn]
        return found

    alone, shuffled = list(range(PROBLEMS)), random.Random(0).sample(range(PROBLEMS), PROBLEMS)
    whole = asked(alone, PROBLEMS)
    for way, size in GROUPS.items():
        order = shuffled if way == "shuffled" else alone[:FEW] if size == 1 else alone
        found = asked(order, size)
        differ = sum(mine != yours for n in found for mine, yours in zip(found[n], whole[n], strict=True))
        print(f"{dtype} | {way} | {differ:,} | {sum(map(len, found.values())):,}", flush=True)


def _requests(dtype: str) -> list[Request]:
    sampling = SamplingConfig(samples=SAMPLES, temperature=1.0, top_k=0, max_tokens=48, dtype=dtype)
    job = GenerateJob(problems=BASE, output=BASE, sampling=sampling, seed=1, shard_size=1)  # its files are not used
    tokenizer = load_tokenizer(BASE, "refuse")
    problems = [problem for problem in embedded_problems(0) if problem.split == "train"][:PROBLEMS]
    prompts = {problem.id: prompt_token_ids(tokenizer, problem.messages) for problem in problems}
    return [engine_request(job, key, prompt, stop_token_ids(tokenizer)) for key, prompt in prompts.items()]


if __name__ == "__main__":
    measure(sys.argv[1])
    leave()
