"""Generation programs for benchmarks."""

from collections.abc import Sequence
from pathlib import Path

from data.rows import Problem
from data.storage import write_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig, UntilKept


def sampled(samples: int, temperature: float, max_tokens: int = 48) -> SamplingConfig:
    """Sampling from the whole distribution, as benchmarks draw it on a CPU."""
    return SamplingConfig(samples=samples, temperature=temperature, top_k=0, max_tokens=max_tokens, dtype="float32")


def write_program(
    file: Path,
    policy: Path,
    problems: Sequence[Problem],
    sampling: SamplingConfig,
    engine: EngineConfig = EngineConfig(),  # noqa: B008  frozen
    until: UntilKept | None = None,
) -> GenerateProgram:
    """Write a program that samples answers, with its problems beside it, and return it.

    The samples go to a folder with the file's name, without its ending.
    """
    write_rows(Problem, file.with_suffix(".parquet"), problems)
    job = GenerateJob(
        problems=file.with_suffix(".parquet"),
        output=file.with_suffix(""),
        sampling=sampling,
        seed=1,
        shard_size=engine.shard_size,
        until=until,
    )
    program = GenerateProgram(policy=policy, policy_digest="", jobs=[job], engine=engine)
    file.write_text(program.model_dump_json())
    return program
