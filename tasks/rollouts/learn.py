"""The stage `train` of on-policy learning: sampling, rewards and updates, step after step, in one program."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.storage import count_rows
from data.wording import counted
from models.config import EngineConfig, LaunchConfig
from models.estimate import (
    activation_bytes,
    checkpoint_disk_bytes,
    training_bytes_per_device,
    training_disk_bytes,
    weights_bytes_per_device,
)
from models.launch import ON_POLICY, launch_command
from models.on_policy import JudgedBy, OnPolicyConfig, OnPolicyProgram, OnPolicySamplingConfig
from tasks.policies.train import decided
from tasks.rollouts.rewards import RewardConfig, graders, reward_identity
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

VERSION = 1
STATE = "state"
STATE_BYTES = 14  # per weight: in bfloat16 the weights, their 32-bit masters, and two moments


@dataclass(frozen=True)
class Learning:
    """Settings of the stages of all iterations. `reference` is the policy that divergences are measured from."""

    train: OnPolicyConfig
    sampling: OnPolicySamplingConfig
    reward: RewardConfig
    engine: EngineConfig
    launch: LaunchConfig
    reference: Artifact
    iterations: int

    @property
    def total_steps(self) -> int:
        return self.iterations * self.train.steps


def learn(at: Place, number: int, before: Result, problems: Artifact, how: Learning) -> Result:
    """Make the steps of an iteration. The policy is in `policy/`, what the next one goes on from in `state/`.

    Args:
        number: of the iteration; the first is 1.
        before: the stage that made the policy to go on from.
    """
    run, train, start = at.run, how.train, before.artifact("policy")
    launch = decided(run, Training(train, how.launch), sequences=1)
    first = (number - 1) * train.steps
    inputs = {"start": start, "reference": how.reference, "problems": problems}
    inputs |= {"state": before.artifact(STATE)} if number > 1 else {}
    answers = train.steps * train.problems * how.sampling.samples
    stage = Stage(
        at.stage("train"),
        VERSION,
        {
            "train": train.model_dump(mode="json", exclude={"most_drift", "patience"}),
            "sampling": how.sampling.model_dump(mode="json"),
            "reward": reward_identity(how.reward),
            "first_step": first,
            "total_steps": how.total_steps,
            "processes": how.launch.processes,
        },
        inputs,
        run.seed,
        resumable=True,
        command=" ".join(launch_command(ON_POLICY, launch, Path("train.json"))),
        estimate=Estimate(
            samples=answers,
            tokens=answers * how.sampling.max_tokens,
            disk_bytes=2 * training_disk_bytes(run.parameters, train),
            checkpoint_bytes=checkpoint_disk_bytes(run.parameters, train) + STATE_BYTES * (run.parameters or 0),
            gpu_bytes=_gpu_bytes(run, how, launch),
            devices=launch.processes,
            cached=True,
        ),
    )

    def work(attempt: Path) -> Outcome:
        told: dict[str, Any] = {"policy": start.path, "model_code": run.model_code, "reference": how.reference.path}
        told |= {"state": inputs["state"].path if number > 1 else None, "problems": problems.path}
        told |= {"train": train, "sampling": how.sampling, "engine": how.engine, "launch": launch}
        told |= {"judged_by": _judged_by(how.reward, launch.processes), "output": attempt / "policy", "seed": run.seed}
        program = OnPolicyProgram.model_validate(told | {"first_step": first, "total_steps": how.total_steps})
        rows = count_rows(problems.path)
        asked = f"{counted(train.problems, 'problem')} × {counted(how.sampling.samples, 'answer')}"
        maker = run.maker(start)
        run_logger().info(
            "%s of %s of %s, from the policy of %s", counted(train.steps, "step"), asked, f"{rows:,}", maker
        )
        command = launch_program(ON_POLICY, program, attempt, run.child_lock)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def _judged_by(reward: RewardConfig, processes: int) -> JudgedBy:
    return JudgedBy(
        graders=graders(reward),
        combination=reward.combination,
        isolation=reward.isolation,
        workers=max(1, reward.processes // processes),
        max_error_share=reward.max_error_share,
    )


def _gpu_bytes(run: Run, how: Learning, launch: LaunchConfig) -> int | None:
    """Policy, optimizer and reference, which stay on the device; the engine has its share beside them."""
    held = training_bytes_per_device(run.parameters, how.train, launch)
    reference = weights_bytes_per_device(run.parameters, how.train, launch)
    tokens = launch.micro_batch_size * run.row_tokens
    activations = activation_bytes(run.parameters, tokens, how.train.dtype, launch)
    return None if held is None or reference is None or activations is None else held + reference + activations
