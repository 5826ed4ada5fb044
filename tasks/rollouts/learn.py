"""The stage `train` of on-policy learning: sampling, rewards and updates, step after step, in one program."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from data.rewards import RewardError
from data.storage import count_rows
from data.wording import counted
from models.config import EngineConfig, JudgeProgram, LaunchConfig, RewardScoreProgram
from models.estimate import (
    activation_bytes,
    checkpoint_disk_bytes,
    generation_bytes_per_device,
    training_bytes_per_device,
    training_disk_bytes,
    weights_bytes_per_device,
)
from models.launch import ON_POLICY, launch_command
from models.on_policy import JudgedBy, OnPolicyConfig, OnPolicyProgram, OnPolicySamplingConfig
from tasks.policies.adapter import merge, record_base
from tasks.policies.train import decided
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.model_reward import ModelReward
from tasks.rollouts.rewards import RewardConfig, graders, reward_identity, reward_inputs
from tasks.rollouts.trained_reward import TrainedReward
from tasks.stage.contract import JOURNAL, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpu_memory
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

VERSION = 1
STATE = "state"


class NoRoomError(AutodidactError):
    """Engine and trainer do not fit into a GPU together."""


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

    Every answer that was drawn is in `rollouts/`, a file for each step.

    Args:
        number: of the iteration; the first is 1.
        before: the stage that made the policy to go on from.
    """
    run, train, start = at.run, how.train, before.artifact("policy")
    launch = decided(run, Training(train, how.launch), sequences=1)
    needed = _needed_memory(run, how, launch)
    first = (number - 1) * train.steps
    inputs = {"start": start, "reference": how.reference, "problems": problems, **reward_inputs(run, how.reward)}
    inputs |= {"state": before.artifact(STATE)} if number > 1 else {}
    answers = train.steps * train.problems * how.sampling.samples
    stage = Stage(
        at.stage("train"),
        VERSION,
        {
            "train": train.model_dump(mode="json", exclude={"most_drift", "most_kl", "patience"}),
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
            # Besides its own checkpoints, the state that it goes on from and the one that it leaves.
            disk_bytes=2 * training_disk_bytes(run.parameters, train) + answers * _answer_bytes(how),
            checkpoint_bytes=checkpoint_disk_bytes(run.parameters, train),
            gpu_bytes=needed,
            devices=launch.processes,
            cached=True,
        ),
    )

    def work(attempt: Path) -> Outcome:
        told: dict[str, Any] = {"policy": start.path, "model_code": run.model_code, "reference": how.reference.path}
        told |= {"state": inputs["state"].path if number > 1 else None, "problems": problems.path}
        told |= {"train": train, "sampling": how.sampling, "engine": how.engine, "launch": launch}
        told |= {"judged_by": _judged_by(at, how, launch.processes), "output": attempt / "policy", "seed": run.seed}
        program = OnPolicyProgram.model_validate(told | {"first_step": first, "total_steps": how.total_steps})
        rows = count_rows(problems.path)
        asked = f"{counted(train.problems, 'problem')} × {counted(how.sampling.samples, 'answer')}"
        maker = run.maker(start)
        run_logger().info(
            "%s of %s of %s, from the policy of %s", counted(train.steps, "step"), asked, f"{rows:,}", maker
        )
        command = launch_program(ON_POLICY, program, attempt, run.child_lock)
        if train.adapter is not None:
            record_base(attempt / "adapter", how.reference.path, train)
            merge(how.reference.path, attempt / "adapter", attempt / "policy", run.child_lock, code=run.model_code)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def end_by_kl(learned: Result, train: OnPolicyConfig) -> str | None:
    """Why a loop must end after an iteration that went too far from the base, or None."""
    if train.most_kl is None or learned.finished is None:
        return None
    kl = float(json.loads((learned.path / JOURNAL).read_text().splitlines()[-1])["kl"])
    if kl <= train.most_kl:
        return None
    return f"the KL divergence from the base reached {kl:.3g} nats per token, more than train.most_kl {train.most_kl:g}"


def check_scored_in_the_program(reward: RewardConfig) -> None:
    """Refuse rewards that need a program of their own.

    Raises:
        RewardError: a reward is one.
    """
    for name, model in reward.models.items():
        if isinstance(model, Judge) and model.config.endpoint is None:
            raise RewardError(
                "grpo asks its judge in every step, while the GPUs are taken by the policy that learns.",
                what_next="Serve the judge (such as with `vllm serve`, on GPUs of its own) and give its address as "
                "reward.judge.endpoint.",
            )
        if not isinstance(model, Judge | TrainedReward):
            raise RewardError(
                f"grpo scores answers inside the training program, but the reward {name} has a program of its own.",
                what_next="Give it as a function, package.module:name, or use final_answer, program, reward-model, or "
                "judge at an endpoint.",
            )


def _judged_by(at: Place, how: Learning, processes: int) -> JudgedBy:
    reward = how.reward
    return JudgedBy(
        graders=graders(reward),
        models={name: _scoring(at, how, model) for name, model in reward.models.items()},
        combination=reward.combination,
        isolation=reward.isolation,
        workers=max(1, reward.processes // processes),
        max_error_share=reward.max_error_share,
    )


def _scoring(at: Place, how: Learning, model: ModelReward) -> RewardScoreProgram | JudgeProgram:
    if isinstance(model, TrainedReward):
        return model.program([])
    assert isinstance(model, Judge)
    return model.program(at, [], how.engine).model_copy(update={"seed": at.run.seed})


def _answer_bytes(how: Learning) -> int:
    """Bytes of an answer that is kept: its token ids, and about as much text."""
    return 8 * how.sampling.max_tokens


def _needed_memory(run: Run, how: Learning, launch: LaunchConfig) -> int | None:
    """Bytes per device: what the trainer always holds, and besides the engine's weights or activations, in turn.

    Raises:
        NoRoomError: the engine's share of a GPU here is more than what the trainer leaves.
    """
    train, engine = how.train, how.engine.model_copy(update={"tensor_parallel_size": 1})
    held = training_bytes_per_device(run.parameters, train, launch)
    weights = weights_bytes_per_device(run.parameters, train, launch)
    tokens = launch.micro_batch_size * run.row_tokens
    activations = activation_bytes(run.parameters, tokens, train.dtype, launch)
    serving = generation_bytes_per_device(run.parameters, how.sampling.dtype, engine)
    if held is None or weights is None or activations is None or serving is None:
        return None
    held += 0 if train.adapter else weights  # an adapter's reference is the policy without it
    held += sum(model.estimate(a, engine).gpu_bytes or 0 for model, a in _models_here(run, how))
    memory = gpu_memory()
    if memory is not None and held + engine.gpu_memory_utilization * memory > memory:
        left = max(0.0, 1 - held / memory)
        raise NoRoomError(
            f"Engine and trainer do not fit into a GPU of {memory / 1e9:.0f} GB together: the trainer holds about "
            f"{held / 1e9:.0f} GB, which leaves {left:.0%}, and engine.gpu_memory_utilization is "
            f"{engine.gpu_memory_utilization:g}.",
            what_next="Lower it, spread the trainer over more GPUs (launch.processes with launch.zero_stage 3), "
            "offload it (launch.offload), or train an adapter (train.adapter).",
        )
    return held + max(serving, activations)


def _models_here(run: Run, how: Learning) -> list[tuple[ModelReward, Artifact]]:
    return [(how.reward.models[name], artifact) for name, artifact in reward_inputs(run, how.reward).items()]
