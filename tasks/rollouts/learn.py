"""The stage `train` of on-policy learning: sampling, rewards and updates, step after step, in one program."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from data.files import write_json
from data.rewards import RewardError
from data.rows import Rollout
from data.scoring import Tally
from data.storage import count_rows, read_rows
from data.wording import counted
from models.config import DirectScoreProgram, JudgeProgram, LaunchConfig, RewardScoreProgram
from models.estimate import (
    activation_bytes,
    checkpoint_disk_bytes,
    generation_bytes_per_device,
    training_bytes_per_device,
    training_disk_bytes,
    weights_bytes_per_device,
)
from models.launch import ON_POLICY, launch_command
from models.loading import unmerged
from models.on_policy import (
    ROLLOUTS,
    JudgedBy,
    OnPolicyConfig,
    OnPolicyEngineConfig,
    OnPolicyProgram,
    OnPolicySamplingConfig,
    PPOConfig,
)
from tasks.datasets.select import SELECTION
from tasks.policies.adapter import finish
from tasks.policies.train import decided
from tasks.rollouts.direct_reward import DirectReward
from tasks.rollouts.generate import BYTES_PER_TOKEN
from tasks.rollouts.judge_reward import Judge
from tasks.rollouts.model_reward import ModelReward
from tasks.rollouts.rewards import MODELLED, RewardConfig, graders, reward_identity
from tasks.rollouts.score import TALLY
from tasks.rollouts.trained_reward import TrainedReward
from tasks.stage.contract import JOURNAL, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpu_memory
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

VERSION = 3  # a checkpoint has more numbers
STATE, FLAT = "state", "no spread"
LIMITS = {
    "most_drift",
    "most_kl",
    "patience",
    "runaway_kl",
    "runaway_value_loss",
}  # they end training, or change nothing


class NoRoomError(AutodidactError):
    """Engine and trainer do not fit into a GPU together."""


@dataclass(frozen=True)
class Learning:
    """Settings of the stages of all iterations.

    Attributes:
        reference: the policy that divergences are measured from.
        scorers: the models that score, by the name of their reward.
        mix: rows that PPO learns beside its answers.
        before: stages that were done for this and are shown with the base, by kind.
    """

    train: OnPolicyConfig
    sampling: OnPolicySamplingConfig
    reward: RewardConfig
    engine: OnPolicyEngineConfig
    launch: LaunchConfig
    reference: Artifact
    scorers: Mapping[str, Artifact]
    iterations: int
    mix: Artifact | None = None
    before: Mapping[str, Result] = field(default_factory=dict)

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
    first = (number - 1) * train.steps
    inputs = {"start": start, "reference": how.reference, "problems": problems, **how.scorers}
    inputs |= {"state": before.artifact(STATE)} if number > 1 else {}
    inputs |= {"mix": how.mix} if how.mix else {}
    answers = train.steps * train.problems * how.sampling.samples * train.rounds
    drawn_bytes = answers * how.sampling.max_tokens * BYTES_PER_TOKEN
    stage = Stage(
        at.stage("train"),
        VERSION,
        {
            "train": train.model_dump(mode="json", exclude=LIMITS),
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
            disk_bytes=2 * sum(training_disk_bytes(run.parameters, one) for one in _trained(train)) + drawn_bytes,
            checkpoint_bytes=checkpoint_disk_bytes(run.parameters, train),
            kept_bytes=drawn_bytes,
            gpu_bytes=_gpu_bytes(run, how, launch),
            devices=launch.processes,
            cached=True,
        ),
    )

    def work(attempt: Path) -> Outcome:
        told: dict[str, Any] = {"policy": start.path, "model_code": run.model_code, "reference": how.reference.path}
        told |= {"state": inputs["state"].path if number > 1 else None, "problems": problems.path}
        told |= {"mix": how.mix.path if how.mix else None}
        told |= {"train": train, "sampling": how.sampling, "engine": how.engine.in_training, "launch": launch}
        told |= {"judged_by": _judged_by(at, how, launch.processes), "output": attempt / "policy", "seed": run.seed}
        told |= _value(run, how)
        program = OnPolicyProgram.model_validate(told | {"first_step": first, "total_steps": how.total_steps})
        rows = count_rows(problems.path)
        asked = f"{counted(train.problems, 'problem')} × {counted(how.sampling.samples, 'answer')}"
        maker = run.maker(start)
        run_logger().info(
            "%s of %s of %s, from the policy of %s", counted(train.steps, "step"), asked, f"{rows:,}", maker
        )
        command = launch_program(ON_POLICY, program, attempt, run.child_lock)
        if train.adapter is not None:
            finish(how.reference.path, attempt, train, run.child_lock, False, run.model_code)
        drawn, learned = _count(attempt)
        said = f"{counted(drawn, 'answer')} drawn, {learned:,} with something to learn from"
        return Outcome(drawn, learned, {FLAT: drawn - learned}, tuple(command), said=said)

    result = run.execute(stage, work)
    if run.planning and result.finished is None:
        _require_room(run, how, launch)
    return result


def _count(attempt: Path) -> tuple[int, int]:
    """Count what was drawn, by verdict and by use, for the report; return all answers, and those learned from."""
    tally, learned = Tally(), 0
    for row in read_rows(Rollout, attempt / ROLLOUTS):
        tally.verdicts[row.verdict] += 1
        tally.truncated += row.finish_reason != "stop"
        tally.tokens += len(row.token_ids)
        learned += bool(row.advantage)
    write_json(
        attempt / TALLY, {"verdicts": dict(tally.verdicts), "truncated": tally.truncated, "tokens": tally.tokens}
    )
    drawn = tally.samples
    write_json(attempt / SELECTION, {"samples": drawn, "kept": learned, FLAT: drawn - learned})
    return drawn, learned


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
                "The judge is asked in every step, while the GPUs are taken by the policy that learns.",
                what_next="Serve the judge (such as with `vllm serve`, on GPUs of its own) and give its address as "
                "reward.judge.endpoint.",
            )
        if not isinstance(model, Judge | TrainedReward | DirectReward):
            raise RewardError(
                f"Answers are scored inside the training program, but the reward {name} has a program of its own.",
                what_next="Give it as a function, package.module:name, or use final_answer, program, reward-model, "
                "direct, or judge at an endpoint.",
            )


def _judged_by(at: Place, how: Learning, processes: int) -> JudgedBy:
    reward = how.reward
    return JudgedBy(
        graders=graders(reward),
        models={name: _scoring(at, how, name, model) for name, model in reward.models.items()},
        combination=reward.combination,
        isolation=reward.isolation,
        workers=max(1, reward.processes // processes),
        max_error_share=reward.max_error_share,
    )


def _value(run: Run, how: Learning) -> dict[str, Any]:
    """What PPO's value model starts from."""
    if not isinstance(how.train, PPOConfig):
        return {}
    if how.train.value_from == "policy":
        return {"value": how.reference.path, "value_code": run.model_code}
    given = how.reward.model  # without a path it was made in this run, from the policy
    return {"value": how.scorers[MODELLED].path, "value_code": given.model_code if given.path else run.model_code}


def _trained(train: OnPolicyConfig) -> list[OnPolicyConfig]:
    """How each model is trained: the policy, and with PPO a value model, whose weights are all trained."""
    return [train, train.model_copy(update={"adapter": None})] if isinstance(train, PPOConfig) else [train]


def _scoring(
    at: Place, how: Learning, name: str, model: ModelReward
) -> RewardScoreProgram | DirectScoreProgram | JudgeProgram:
    if isinstance(model, TrainedReward):
        there = model.config.model_copy(update={"path": str(how.scorers[name].path)})  # perhaps made in this run
        return TrainedReward(config=there).program([])
    if isinstance(model, DirectReward):
        return model.program([])
    assert isinstance(model, Judge)
    return model.program(at, [], how.engine).model_copy(update={"seed": at.run.seed})


def _held_bytes(run: Run, how: Learning, launch: LaunchConfig) -> int | None:
    """Bytes per device that the trainer always holds: its state, the reference, reward models."""
    train, engine = how.train, how.engine
    states = [training_bytes_per_device(run.parameters, one, launch) for one in _trained(train)]
    without = train.adapter is not None and unmerged(how.reference.path) is None  # the adapter, it is the reference
    reference = 0 if without else weights_bytes_per_device(run.parameters, train, launch)
    known = [state for state in states if state is not None]
    if len(known) < len(states) or reference is None:
        return None
    models = how.reward.models
    scorers = sum(models[name].estimate(artifact, engine).gpu_bytes or 0 for name, artifact in how.scorers.items())
    return sum(known) + reference + scorers


def _gpu_bytes(run: Run, how: Learning, launch: LaunchConfig) -> int | None:
    """Bytes per device: what the trainer holds, and besides the engine's weights or activations, in turn."""
    tokens = launch.micro_batch_size * run.row_tokens
    held, activations = _held_bytes(run, how, launch), activation_bytes(run.parameters, tokens, how.train.dtype, launch)
    serving = generation_bytes_per_device(run.parameters, how.sampling.dtype, how.engine.in_training)
    if held is None or activations is None or serving is None:
        return None
    return held + max(serving, activations * len(_trained(how.train)))


def _require_room(run: Run, how: Learning, launch: LaunchConfig) -> None:
    """Refuse an engine whose share of a GPU here is more than what the trainer leaves.

    Raises:
        NoRoomError: it is.
    """
    memory, held, share = gpu_memory(), _held_bytes(run, how, launch), how.engine.beside_trainer
    if memory is None or held is None or held + share * memory <= memory:
        return
    raise NoRoomError(
        f"Engine and trainer do not fit into a GPU of {memory / 1e9:.0f} GB together: the trainer holds about "
        f"{held / 1e9:.0f} GB, which leaves {max(0.0, 1 - held / memory):.0%}, and engine.beside_trainer is "
        f"{share:g}.",
        what_next="Lower it, spread the trainer over more GPUs (launch.processes with launch.zero_stage 3), "
        "offload it (launch.offload), or train an adapter (train.adapter).",
    )
