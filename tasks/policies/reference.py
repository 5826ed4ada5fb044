"""The stage `reference`: the likelihood of both answers of every pair under the policy that training starts from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import write_json
from data.likelihood import LikelihoodMetrics, PreferenceLoss, likelihood_metrics
from data.rows import PairLikelihood
from data.storage import count_rows, read_rows
from data.wording import counted
from models.config import LaunchConfig, LikelihoodProgram, PreferenceConfig, TrainConfig
from models.estimate import weights_bytes_per_device
from models.launch import LIKELIHOOD, launch_command
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

VERSION = 2  # the chat template frames gold answers
LIKELIHOOD_FILE = "likelihood.json"


@dataclass(frozen=True)
class PairsMeasured:
    """Pairs, their likelihoods under the reference, and the loss.

    Attributes:
        pairs: Parquet file of Pair rows.
        reference: Parquet file of PairLikelihood rows of these pairs, made by `measure_reference`.
        answers: folder of the opponent's answers, including the rejected sides, for degeneration metrics; SPIN only.
    """

    pairs: Artifact
    reference: Artifact
    beta: float
    loss: PreferenceLoss
    answers: Artifact | None = None


@dataclass(frozen=True)
class Reference:
    """Likelihoods of sets of pairs under the policy that training starts from."""

    stage: Result
    pairs: Mapping[str, Artifact]
    config: PreferenceConfig

    def measured(self, name: str, answers: Artifact | None = None) -> PairsMeasured:
        """Return one of the sets, with the training loss."""
        reference = self.stage.artifact(f"{name}.parquet")
        return PairsMeasured(self.pairs[name], reference, self.config.beta, self.config.loss, answers)


def measure_reference(
    at: Place, policy: Artifact, pairs: Mapping[str, Artifact], training: Training[PreferenceConfig]
) -> Reference:
    """Compute the likelihood of both answers of every pair under `policy`: one file per set of pairs.

    The weights have the same dtype and quantization as in training, so that training starts from log-ratios of zero,
    up to rounding.
    """
    run, config, launch = at.run, training.config, training.launch
    expected = sum(artifact.expected for artifact in pairs.values())
    stage = Stage(
        at.stage("reference"),
        VERSION,
        held_as(config),
        {"policy": policy, **{f"pairs_{key}": artifact for key, artifact in pairs.items()}},
        command=likelihood_command(launch),
        estimate=likelihood_estimate(run, training, 2 * expected, 60 * expected),
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
        given = sum(count_rows(artifact.path) for artifact in pairs.values())
        run_logger().info("Likelihood of %s under the policy of %s", counted(given, "pair"), run.maker(policy))
        command = launch_program(LIKELIHOOD, program, attempt, run.child_lock)
        some = {key: file for key, file in outputs.items() if count_rows(file)}  # all held-out answers may be gold
        metrics = {key: likelihood_metrics(read_rows(PairLikelihood, file)) for key, file in some.items()}
        write_json(attempt / LIKELIHOOD_FILE, {key: found.model_dump() for key, found in metrics.items()})
        rows = sum(count_rows(file) for file in outputs.values())
        return Outcome(rows, rows, command=tuple(command))

    return Reference(run.execute(stage, work), pairs, config)


def load_likelihood(result: Result) -> dict[str, LikelihoodMetrics]:
    """Read the result of `measure_reference`, by set of pairs; empty while it is only planned."""
    if result.finished is None:
        return {}
    found = json.loads((result.path / LIKELIHOOD_FILE).read_text())
    return {key: LikelihoodMetrics.model_validate(values) for key, values in found.items()}


def held_as(config: TrainConfig) -> dict[str, Any]:
    """Return the training settings that change likelihoods."""
    return {"dtype": config.dtype, "quantize": config.quantize}


def likelihood_command(launch: LaunchConfig) -> str:
    return " ".join(launch_command(LIKELIHOOD, launch, Path("likelihood.json")))


def likelihood_estimate(run: Run, training: Training[TrainConfig], samples: int, disk_bytes: int) -> Estimate:
    """Estimate the cost of measuring this many answers."""
    return Estimate(
        samples=samples,
        disk_bytes=disk_bytes,
        gpu_bytes=weights_bytes_per_device(run.parameters, training.config, training.launch),
        devices=training.launch.processes,
    )
