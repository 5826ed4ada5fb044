"""The training stages: they launch a training program and report its progress to the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.storage import count_rows
from data.wording import counted
from models.config import (
    LaunchConfig,
    LaunchedProgram,
    PreferenceConfig,
    PreferenceProgram,
    RewardTrainConfig,
    RewardTrainProgram,
    SupervisedConfig,
    TrainConfig,
    TrainProgram,
)
from models.estimate import activation_bytes, checkpoint_disk_bytes, training_bytes_per_device, training_disk_bytes
from models.launch import PREFERENCE, REWARD, SUPERVISED, launch_command
from tasks.policies.adapter import finish
from tasks.policies.reference import PairsMeasured
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpu_memory
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

TRAIN_VERSION = 3  # the chat template frames gold answers
ROW_BYTES_PER_TOKEN = 12  # an id, a label and a weight
MOST_OF_MEMORY = 0.9  # what an estimate may take of a GPU: it is without fragmentation and libraries


@dataclass(frozen=True)
class _Kind:
    """A kind of training: its program, the program's configuration, and the number of sequences per row."""

    module: str
    program: type[LaunchedProgram]
    sequences: int


_SUPERVISED = _Kind(SUPERVISED, TrainProgram, 1)
_PREFERENCE = _Kind(PREFERENCE, PreferenceProgram, 2)
_REWARD = _Kind(REWARD, RewardTrainProgram, 2)


def train(
    at: Place,
    start: Artifact,
    examples: Artifact,
    training: Training[SupervisedConfig],
    held_out: Artifact | None = None,
) -> Result:
    """Fine-tune the policy `start` on `examples`. The new policy is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: problems whose gold answers are measured during training, `launch.evaluations` times. Changes no
            weight.
    """
    return _train(at, _SUPERVISED, start, {"examples": {"examples": examples}}, training, {"held_out": held_out})


def train_on_pairs(
    at: Place,
    start: Artifact,
    pairs: Mapping[str, PairsMeasured],
    training: Training[PreferenceConfig],
    held_out: PairsMeasured | None = None,
) -> Result:
    """Train the policy `start` to prefer the chosen answers. The reference is the policy that measured the pairs.

    The new policy is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: pairs that are measured during training, `launch.evaluations` times, with the training loss. Changes
            no weight.
    """
    rows = {
        "pairs": {f"pairs_{key}": one.pairs for key, one in pairs.items()},
        "reference": {f"reference_{key}": one.reference for key, one in pairs.items()},
    }
    watched = {"held_out": held_out.pairs, "held_out_reference": held_out.reference} if held_out else {}
    return _train(at, _PREFERENCE, start, rows, training, watched)


def train_reward_model(
    at: Place,
    start: Artifact,
    pairs: Artifact,
    training: Training[RewardTrainConfig],
    held_out: Artifact | None = None,
) -> Result:
    """Train a reward model that starts from the policy `start`. It is in `policy/`, the curve in `metrics.jsonl`.

    Args:
        held_out: pairs that are measured during training, `launch.evaluations` times. Changes no weight.
    """
    return _train(at, _REWARD, start, {"pairs": {"pairs": pairs}}, training, {"held_out": held_out})


def _train(
    at: Place,
    kind: _Kind,
    start: Artifact,
    rows: Mapping[str, Mapping[str, Artifact]],
    training: Training[TrainConfig],
    watched: Mapping[str, Artifact | None],
) -> Result:
    """Train with a program of the given kind.

    Args:
        rows: by the program's field, files of rows by input name. The first field's rows are counted.
        watched: what is measured during training, by the program's field.
    """
    run, config = at.run, training.config
    launch = decided(run, training, kind.sequences)
    observed = {name: artifact for name, artifact in watched.items() if artifact is not None and launch.evaluations}
    noun, first = next(iter(rows.items()))
    learned = list(first.values())
    stage = Stage(
        at.stage("train"),
        TRAIN_VERSION,
        config.model_dump(mode="json"),
        {"start": start, **{name: artifact for files in rows.values() for name, artifact in files.items()}},
        at.seed,
        resumable=True,
        command=" ".join(launch_command(kind.module, launch, Path("train.json"))),
        estimate=Estimate(
            samples=int(sum(artifact.expected for artifact in learned) * config.epochs),
            disk_bytes=training_disk_bytes(run.parameters, config) + _rows_bytes(run, config, learned),
            checkpoint_bytes=checkpoint_disk_bytes(run.parameters, config),
            gpu_bytes=_gpu_bytes(run, config, launch, kind.sequences),
            devices=launch.processes,
        ),
        observed=observed,
    )

    def work(attempt: Path) -> Outcome:
        told: dict[str, Any] = {field: [artifact.path for artifact in files.values()] for field, files in rows.items()}
        told |= {field: artifact.path for field, artifact in observed.items()}
        told |= {"policy": start.path, "model_code": run.model_code, "output": attempt / "policy"}
        program = kind.program.model_validate(told | {"seed": at.seed, "train": config, "launch": launch})
        trained_on = sum(count_rows(artifact.path) for artifact in learned)
        passes = f"{counted(trained_on, noun[:-1])} × {counted(config.epochs, 'epoch')}"
        run_logger().info("%s, starting from the policy of %s", passes, run.maker(start))
        command = launch_program(kind.module, program, attempt, run.child_lock)
        if config.adapter is not None:
            finish(start.path, attempt, config, run.child_lock, kind is _REWARD, run.model_code)
        return Outcome(trained_on, trained_on, command=tuple(command))

    return run.execute(stage, work)


def decided(run: Run, training: Training[TrainConfig], sequences: int) -> LaunchConfig:
    """The launch settings. Gradient checkpointing, unless set, is on where training would not fit on a GPU here.

    Args:
        sequences: in each row.
    """
    launch = training.launch
    if launch.gradient_checkpointing is not None:
        return launch
    if training.config.adapter is not None and training.config.adapter.kind == "prefix":
        return launch  # whose keys and values are not there when layers are computed again
    memory, needed = gpu_memory(), _gpu_bytes(run, training.config, launch, sequences)
    too_much = memory is not None and needed is not None and needed > MOST_OF_MEMORY * memory
    return launch.model_copy(update={"gradient_checkpointing": too_much})


def _rows_bytes(run: Run, train: TrainConfig, learned: list[Artifact]) -> int:
    """Bytes of the rows as token ids, which are removed with the checkpoints; packed, they are there twice."""
    tokens = sum(artifact.expected for artifact in learned) * run.row_tokens
    return tokens * ROW_BYTES_PER_TOKEN * (2 if getattr(train, "pack_to", None) else 1)


def _gpu_bytes(run: Run, train: TrainConfig, launch: LaunchConfig, sequences: int) -> int | None:
    held = training_bytes_per_device(run.parameters, train, launch)
    tokens = sequences * launch.micro_batch_size * run.row_tokens
    activations = activation_bytes(run.parameters, tokens, train.dtype, launch)
    return None if held is None or activations is None else held + activations
