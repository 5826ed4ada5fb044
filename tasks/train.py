"""The stages that train: they launch a training program and hand its progress to the run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.likelihood import LikelihoodMetrics, likelihood_metrics
from data.rows import PairLikelihood
from data.storage import count_rows, read_rows
from models.config import (
    LaunchConfig,
    LikelihoodProgram,
    PreferenceConfig,
    PreferenceProgram,
    RewardTrainConfig,
    RewardTrainProgram,
    SupervisedConfig,
    TrainConfig,
    TrainProgram,
)
from models.estimate import activation_bytes, training_bytes_per_device, training_disk_bytes, weights_bytes_per_device
from models.launch import LIKELIHOOD, PREFERENCE, REWARD, SUPERVISED, launch_command
from tasks.adapter import merge, record_base
from tasks.contract import PROGRAM, Artifact, Estimate, Outcome, Stage
from tasks.devices import gpus_held
from tasks.files import write_json
from tasks.logs import run_logger
from tasks.process import run_child
from tasks.run import Result, Run

TRAIN_VERSION, LIKELIHOOD_VERSION = 3, 2  # gold answers are framed as the template frames them
LIKELIHOOD_FILE = "likelihood.json"


def train(
    run: Run,
    name: str,
    start: Artifact,
    examples: Artifact,
    config: SupervisedConfig,
    launch: LaunchConfig,
    seed: int,
    expected_examples: int,
) -> Result:
    """Fine-tune the policy `start` on `examples`. The new policy is in `policy/`, the curve in `metrics.jsonl`."""
    inputs = {"start": start, "examples": examples}
    stage = _training_stage(run, name, SUPERVISED, inputs, config, launch, seed, expected_examples)

    def work(attempt: Path) -> Outcome:
        program = TrainProgram(
            policy=start.path,
            model_code=run.model_code,
            examples=[examples.path],
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(run, SUPERVISED, program, attempt, run.child_lock)
        _finish_adapter(run, config, start, attempt)
        rows = count_rows(examples.path)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def measure_reference(
    run: Run,
    name: str,
    policy: Artifact,
    pairs: Mapping[str, Artifact],
    config: PreferenceConfig,
    launch: LaunchConfig,
    expected_pairs: int,
) -> Result:
    """How likely `policy` finds both answers of every pair: one file of likelihoods for each set of pairs.

    The weights are held as training will hold them, so that training starts from log-ratios of zero but for rounding.
    """
    stage = Stage(
        name,
        LIKELIHOOD_VERSION,
        {"dtype": config.dtype, "quantize": config.quantize},
        {"policy": policy, **{f"pairs_{key}": artifact for key, artifact in pairs.items()}},
        command=" ".join(launch_command(LIKELIHOOD, launch, Path("likelihood.json"))),
        estimate=Estimate(
            samples=2 * expected_pairs,
            disk_bytes=60 * expected_pairs,
            gpu_bytes=weights_bytes_per_device(run.parameters, config, launch),
            devices=launch.processes,
        ),
    )

    def work(attempt: Path) -> Outcome:
        outputs = {key: attempt / f"{key}.parquet" for key in pairs}
        program = LikelihoodProgram(
            policy=policy.path,
            model_code=run.model_code,
            pairs=[artifact.path for artifact in pairs.values()],
            outputs=list(outputs.values()),
            dtype=config.dtype,
            quantize=config.quantize,
            launch=launch,
        )
        command = launch_program(run, LIKELIHOOD, program, attempt, run.child_lock)
        metrics = {key: likelihood_metrics(read_rows(PairLikelihood, file)) for key, file in outputs.items()}
        write_json(attempt / LIKELIHOOD_FILE, {key: found.model_dump() for key, found in metrics.items()})
        rows = sum(count_rows(file) for file in outputs.values())
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
) -> Result:
    """Train the policy `start` to prefer the chosen answers, with `measure_reference` of the same pairs as reference.

    The new policy is in `policy/`, the curve in `metrics.jsonl`.
    """
    likelihoods = {key: reference.artifact(f"{key}.parquet") for key in pairs}
    inputs = {"start": start}
    inputs |= {f"pairs_{key}": artifact for key, artifact in pairs.items()}
    inputs |= {f"reference_{key}": artifact for key, artifact in likelihoods.items()}
    stage = _training_stage(run, name, PREFERENCE, inputs, config, launch, seed, expected_pairs)

    def work(attempt: Path) -> Outcome:
        program = PreferenceProgram(
            policy=start.path,
            model_code=run.model_code,
            pairs=[artifact.path for artifact in pairs.values()],
            reference=[artifact.path for artifact in likelihoods.values()],
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(run, PREFERENCE, program, attempt, run.child_lock)
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
) -> Result:
    """Train a reward model that starts from the policy `start`. It is in `policy/`, the curve in `metrics.jsonl`."""
    stage = _training_stage(run, name, REWARD, {"start": start, "pairs": pairs}, config, launch, seed, expected_pairs)

    def work(attempt: Path) -> Outcome:
        program = RewardTrainProgram(
            policy=start.path,
            model_code=run.model_code,
            pairs=[pairs.path],
            output=attempt / "policy",
            seed=seed,
            train=config,
            launch=launch,
        )
        command = launch_program(run, REWARD, program, attempt, run.child_lock)
        _finish_adapter(run, config, start, attempt, reward=True)
        rows = count_rows(pairs.path)
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def load_likelihood(result: Result) -> dict[str, LikelihoodMetrics]:
    """What `measure_reference` found, by set of pairs; nothing while it is only planned."""
    if result.finished is None:
        return {}
    found = json.loads((result.path / LIKELIHOOD_FILE).read_text())
    return {key: LikelihoodMetrics.model_validate(values) for key, values in found.items()}


def _finish_adapter(run: Run, config: TrainConfig, start: Artifact, attempt: Path, reward: bool = False) -> None:
    """Where an adapter was trained, note what on, and merge it into the new policy."""
    if config.adapter is None:
        return
    adapter = attempt / "adapter"
    record_base(adapter, start.path, config)
    merge(start.path, adapter, attempt / "policy", run.child_lock, reward, run.model_code)


def _training_stage(
    run: Run,
    name: str,
    module: str,
    inputs: Mapping[str, Artifact],
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
    )


def _gpu_bytes(run: Run, config: TrainConfig, launch: LaunchConfig, rows_at_once: int) -> int | None:
    held = training_bytes_per_device(run.parameters, config, launch)
    tokens = rows_at_once * launch.micro_batch_size * run.row_tokens
    activations = activation_bytes(run.parameters, tokens, config.dtype, launch)
    return None if held is None or activations is None else held + activations


def launch_program(
    run: Run,
    module: str,
    program: TrainProgram | PreferenceProgram | LikelihoodProgram | RewardTrainProgram,
    directory: Path,
    lock: Path,
) -> Sequence[str]:
    """Write the program's configuration, run it in `directory`, return the command.

    Raises:
        ChildError: the program failed.
    """
    config = directory / PROGRAM
    config.write_text(program.model_dump_json(indent=2))
    command = launch_command(module, program.launch, config)
    with gpus_held():
        run_child(command, directory / "log.txt", lock, run_logger())
    return command
