"""The stages that train: they launch a training program and hand its progress to the run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.storage import count_rows
from models.config import (
    LaunchConfig,
    PreferenceConfig,
    PreferenceProgram,
    RewardTrainConfig,
    RewardTrainProgram,
    SupervisedConfig,
    TrainConfig,
    TrainProgram,
)
from models.estimate import activation_bytes, training_bytes_per_device, training_disk_bytes
from models.launch import PREFERENCE, REWARD, SUPERVISED, launch_command
from tasks.policies.adapter import merge, record_base
from tasks.policies.reference import PairsMeasured
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.launch import launch_program
from tasks.stage.run import Result, Run

TRAIN_VERSION = 3  # gold answers are framed as the template frames them


def train(
    run: Run,
    name: str,
    start: Artifact,
    examples: Artifact,
    config: SupervisedConfig,
    launch: LaunchConfig,
    seed: int,
    expected_examples: int,
    held_out: Artifact | None = None,
) -> Result:
    """Fine-tune the policy `start` on `examples`. The new policy is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: problems whose gold answers are measured meanwhile, `launch.evaluations` times. Changes no weight.
    """
    inputs, observed = {"start": start, "examples": examples}, _given(launch, held_out=held_out)
    stage = _training_stage(run, name, SUPERVISED, inputs, observed, config, launch, seed, expected_examples)

    def work(attempt: Path) -> Outcome:
        program = TrainProgram(
            policy=start.path,
            model_code=run.model_code,
            examples=[examples.path],
            **_paths(observed),
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(SUPERVISED, program, attempt, run.child_lock)
        _finish_adapter(run, config, start, attempt)
        rows = count_rows(examples.path)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def train_on_pairs(
    run: Run,
    name: str,
    start: Artifact,
    pairs: Mapping[str, Artifact],
    reference: Result,
    config: PreferenceConfig,
    launch: LaunchConfig,
    seed: int,
    expected_pairs: int,
    held_out: PairsMeasured | None = None,
) -> Result:
    """Train the policy `start` to prefer the chosen answers, with `measure_reference` of the same pairs as reference.

    The new policy is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: pairs that are measured meanwhile, `launch.evaluations` times, with the loss that is trained with.
            Changes no weight.
    """
    likelihoods = {key: reference.artifact(f"{key}.parquet") for key in pairs}
    inputs = {"start": start}
    inputs |= {f"pairs_{key}": artifact for key, artifact in pairs.items()}
    inputs |= {f"reference_{key}": artifact for key, artifact in likelihoods.items()}
    pairs_observed, reference_observed = (held_out.pairs, held_out.reference) if held_out else (None, None)
    observed = _given(launch, held_out=pairs_observed, held_out_reference=reference_observed)
    stage = _training_stage(run, name, PREFERENCE, inputs, observed, config, launch, seed, expected_pairs)

    def work(attempt: Path) -> Outcome:
        program = PreferenceProgram(
            policy=start.path,
            model_code=run.model_code,
            pairs=[artifact.path for artifact in pairs.values()],
            reference=[artifact.path for artifact in likelihoods.values()],
            **_paths(observed),
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(PREFERENCE, program, attempt, run.child_lock)
        _finish_adapter(run, config, start, attempt)
        rows = sum(count_rows(artifact.path) for artifact in pairs.values())
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def train_reward_model(
    run: Run,
    name: str,
    start: Artifact,
    pairs: Artifact,
    config: RewardTrainConfig,
    launch: LaunchConfig,
    seed: int,
    expected_pairs: int,
    held_out: Artifact | None = None,
) -> Result:
    """Train a reward model that starts from the policy `start`. It is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: pairs that are measured meanwhile, `launch.evaluations` times. Changes no weight.
    """
    inputs, observed = {"start": start, "pairs": pairs}, _given(launch, held_out=held_out)
    stage = _training_stage(run, name, REWARD, inputs, observed, config, launch, seed, expected_pairs)

    def work(attempt: Path) -> Outcome:
        program = RewardTrainProgram(
            policy=start.path,
            model_code=run.model_code,
            pairs=[pairs.path],
            **_paths(observed),
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(REWARD, program, attempt, run.child_lock)
        _finish_adapter(run, config, start, attempt, reward=True)
        rows = count_rows(pairs.path)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def _finish_adapter(run: Run, config: TrainConfig, start: Artifact, attempt: Path, reward: bool = False) -> None:
    """Where an adapter was trained, note what on, and merge it into the new policy."""
    if config.adapter is None:
        return
    adapter = attempt / "adapter"
    record_base(adapter, start.path, config)
    merge(start.path, adapter, attempt / "policy", run.child_lock, reward, run.model_code)


def _given(launch: LaunchConfig, **held_out: Artifact | None) -> dict[str, Artifact]:
    """What is measured while training, by its name in the program's configuration."""
    return {name: artifact for name, artifact in held_out.items() if artifact is not None and launch.evaluations}


def _paths(observed: Mapping[str, Artifact]) -> dict[str, Any]:
    return {name: artifact.path for name, artifact in observed.items()}


def _training_stage(
    run: Run,
    name: str,
    module: str,
    inputs: Mapping[str, Artifact],
    observed: Mapping[str, Artifact],
    config: TrainConfig,
    launch: LaunchConfig,
    seed: int,
    expected_rows: int,
) -> Stage:
    return Stage(
        name,
        TRAIN_VERSION,
        config.model_dump(mode="json"),
        inputs,
        seed,
        resumable=True,
        command=" ".join(launch_command(module, launch, Path("train.json"))),
        estimate=Estimate(
            samples=int(expected_rows * config.epochs),
            disk_bytes=training_disk_bytes(run.parameters, config),
            gpu_bytes=_gpu_bytes(run, config, launch, rows_at_once=1 if module == SUPERVISED else 2),
            devices=launch.processes,
        ),
        observed=observed,
    )


def _gpu_bytes(run: Run, config: TrainConfig, launch: LaunchConfig, rows_at_once: int) -> int | None:
    held = training_bytes_per_device(run.parameters, config, launch)
    tokens = rows_at_once * launch.micro_batch_size * run.row_tokens
    activations = activation_bytes(run.parameters, tokens, config.dtype, launch)
    return None if held is None or activations is None else held + activations
