"""The stage `generate`: a policy answers problems, in a vLLM program of its own."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.storage import count_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig, ScoreJob
from models.estimate import generation_bytes_per_device
from tasks.rollouts.rewards import RewardConfig, scoring_ahead
from tasks.stage.contract import PROGRAM, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpus_held
from tasks.stage.environment import SHARED_CPU
from tasks.stage.process import run_child
from tasks.stage.progress import progress_logger
from tasks.stage.run import Result, Run

VERSION = 2  # answers end where the template ends a turn
SAMPLES = "samples"
NOTHING: Mapping[str, Artifact] = {}
BYTES_PER_TOKEN = 4  # in Parquet, token ids and text together, before compression


def generate(
    run: Run,
    name: str,
    policy: Artifact,
    problems: Artifact,
    sampling: SamplingConfig,
    engine: EngineConfig,
    seed: int,
    expected_problems: int,
    reward: RewardConfig | None = None,
    also: Mapping[str, Artifact] = NOTHING,
) -> Result:
    """Draw `sampling.samples` answers to every problem. The samples are in `samples/`, one file per shard.

    Args:
        reward: what will judge them, so that this may begin while others are still being generated.
        also: further problems by the folder that the samples of theirs are in, for which no second engine starts.
    """
    stage = Stage(
        name,
        VERSION,
        sampling.model_dump(mode="json"),
        {"policy": policy, "problems": problems, **{f"problems_{key}": artifact for key, artifact in also.items()}},
        seed,
        resumable=True,
        command=" ".join(generate_command(Path("generate.json"))),
        estimate=generation_estimate(run, sampling, engine, expected_problems),
    )

    def work(attempt: Path) -> Outcome:
        asked = {SAMPLES: problems, **also}
        jobs = [
            GenerateJob(
                problems=artifact.path,
                output=attempt / folder,
                sampling=sampling,
                seed=seed,
                shard_size=engine.shard_size,
            )
            for folder, artifact in asked.items()
        ]
        job = jobs[0]
        scored = ScoreJob(problems=problems.path, samples=job.output, output=job.output)
        with scoring_ahead(run, name, scored, reward):
            command = run_generation(run, attempt, policy, jobs, engine)
        rows_in = sum(count_rows(artifact.path) for artifact in asked.values())
        return Outcome(rows_in, sum(count_rows(job.output) for job in jobs), command=tuple(command))

    return run.execute(stage, work)


def greedy_sampling(sampling: SamplingConfig) -> SamplingConfig:
    """One greedy answer to every problem, of the same token limit and number format."""
    shared = {"max_tokens": sampling.max_tokens, "dtype": sampling.dtype}
    return SamplingConfig(samples=1, temperature=0.0, top_p=1.0, top_k=0, **shared)


def generation_estimate(run: Run, sampling: SamplingConfig, engine: EngineConfig, problems: int) -> Estimate:
    samples = problems * sampling.samples
    tokens = samples * sampling.max_tokens
    return Estimate(
        samples=samples,
        tokens=tokens,
        disk_bytes=tokens * BYTES_PER_TOKEN,
        gpu_bytes=generation_bytes_per_device(run.parameters, sampling.dtype, engine),
        devices=engine.tensor_parallel_size,
    )


def run_generation(
    run: Run, attempt: Path, policy: Artifact, jobs: list[GenerateJob], engine: EngineConfig
) -> Sequence[str]:
    """Run the generation program on `jobs`; shards that an earlier attempt finished are kept.

    Raises:
        ChildError: the program failed.
    """
    config = attempt / PROGRAM
    program = GenerateProgram(
        policy=policy.path, policy_digest=policy.require(), model_code=run.model_code, jobs=jobs, engine=engine
    )
    config.write_text(program.model_dump_json(indent=2))
    command = generate_command(config)
    with gpus_held():
        run_child(command, attempt / "log.txt", run.child_lock, progress_logger(run.directory, attempt), SHARED_CPU)
    return command


def generate_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.generate", str(config)]
