"""The stage `generate`: a policy answers problems, in a vLLM program of its own."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.storage import count_rows
from data.wording import counted
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig, ScoreJob, UntilKept
from models.estimate import generation_bytes_per_device
from tasks.datasets.select import SelectConfig
from tasks.rollouts.rewards import RewardConfig, graders, reward_identity
from tasks.rollouts.scoring import scores_ahead, scoring_ahead
from tasks.rollouts.spending import UNTIL
from tasks.stage.contract import PROGRAM, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpus_held
from tasks.stage.environment import SHARED_CPU
from tasks.stage.logs import run_logger
from tasks.stage.progress import progress_logger
from tasks.stage.run import Place, Result, Run

VERSION = 2  # answers end where the template ends a turn
SAMPLES = "samples"
BYTES_PER_TOKEN = 4  # in Parquet, token ids and text together, before compression


@dataclass(frozen=True)
class Sampling:
    """The settings of a stage in which a policy answers.

    With `until`, a problem is not sampled any more once it has as many answers as this will select.
    """

    config: SamplingConfig
    engine: EngineConfig
    until: SelectConfig | None = None

    @property
    def greedy(self) -> "Sampling":
        """One greedy answer per problem, with the same token limit and dtype."""
        shared = {"max_tokens": self.config.max_tokens, "dtype": self.config.dtype}
        return Sampling(SamplingConfig(samples=1, temperature=0.0, top_p=1.0, top_k=0, **shared), self.engine)


def generate(
    at: Place,
    policy: Artifact,
    problems: Mapping[str, Artifact],
    sampling: Sampling,
    reward: RewardConfig | None = None,
) -> Result:
    """Sample `samples` answers to every problem.

    Args:
        problems: sets of problems by output folder, one file per shard; the first, `samples`, is the stage's own.
            All share one engine.
        reward: the reward that will judge `samples`, so that scoring can begin while others are still being generated.
            With `sampling.until`, it tells which are enough.
    """
    run, engine, until = at.run, sampling.engine, sampling.until
    enough = {} if until is None or reward is None else {UNTIL: until.model_dump() | reward_identity(reward)}
    stage = Stage(
        at.stage("generate"),
        VERSION,
        sampling.config.model_dump(mode="json") | enough,
        {"policy": policy}
        | {"problems" if key == SAMPLES else f"problems_{key}": artifact for key, artifact in problems.items()},
        at.seed,
        resumable=True,
        command=" ".join(generate_command(Path("generate.json"))),
        estimate=generation_estimate(run, sampling, problems[SAMPLES].expected),
        expected={key: artifact.expected * sampling.config.samples for key, artifact in problems.items()},
    )

    def work(attempt: Path) -> Outcome:
        jobs = [generate_job(at, artifact.path, attempt / key, sampling) for key, artifact in problems.items()]
        rows_in = sum(count_rows(artifact.path) for artifact in problems.values())
        asked = f"{counted(rows_in, 'problem')} × {counted(sampling.config.samples, 'answer')}"
        run_logger().info("%s with the policy of %s", asked, run.maker(policy))
        if until is not None and reward is not None:
            jobs[0] = jobs[0].model_copy(update={"until": _until_kept(at, until, reward)})
        scored = ScoreJob(problems=problems[SAMPLES].path, samples=attempt / SAMPLES, output=attempt / SAMPLES)
        with scoring_ahead(at, scored, None if until else reward):
            command = run_generation(run, attempt, policy, jobs, engine)
        return Outcome(rows_in, sum(count_rows(job.output) for job in jobs), command=tuple(command))

    return run.execute(stage, work)


def generate_job(at: Place, problems: Path, output: Path, sampling: Sampling) -> GenerateJob:
    """The generation program's job for one set of problems."""
    told = {"sampling": sampling.config, "seed": at.seed, "shard_size": sampling.engine.shard_size}
    return GenerateJob.model_validate({"problems": problems, "output": output, **told})


def _until_kept(at: Place, select: SelectConfig, reward: RewardConfig) -> UntilKept:
    """When a problem has enough answers. The scores between rounds are those of the stage `score`."""
    (name, grader), *_ = graders(reward).items()
    return UntilKept(
        kept=select.max_per_problem,
        min_reward=select.min_reward,
        reward=name,
        grader=grader,
        isolation=reward.isolation,
        workers=reward.processes,
        max_error_share=reward.max_error_share,
        scores=scores_ahead(at, reward),
    )


def generation_estimate(run: Run, sampling: Sampling, problems: int) -> Estimate:
    samples = problems * sampling.config.samples
    tokens = samples * sampling.config.max_tokens
    return Estimate(
        samples=samples,
        tokens=tokens,
        disk_bytes=tokens * BYTES_PER_TOKEN,
        gpu_bytes=generation_bytes_per_device(run.parameters, sampling.config.dtype, sampling.engine),
        devices=sampling.engine.tensor_parallel_size,
        cached=True,
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
        run.start(command, attempt / "log.txt", run.child_lock, progress_logger(run.directory, attempt), SHARED_CPU)
    return command


def generate_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.generate", str(config)]
