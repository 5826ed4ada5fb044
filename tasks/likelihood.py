"""The stages that measure how likely a policy finds given answers: a reference for training, and held-out rows."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.degeneration import degeneration
from data.likelihood import (
    LikelihoodMetrics,
    PreferenceLoss,
    accuracy_rows,
    likelihood_metrics,
    log_ratios,
    loss_details,
    loss_rows,
    preference_metrics,
)
from data.measures import DISCRIMINATOR, LOSS, Measure
from data.render import context_length
from data.rows import GoldLikelihood, MeasuredRow, PairLikelihood, Problem, Sample
from data.storage import count_rows, read_rows
from models.config import LaunchConfig, LikelihoodProgram, PreferenceConfig, TrainConfig
from models.estimate import weights_bytes_per_device
from models.launch import LIKELIHOOD, launch_command
from models.loading import load_config
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.files import write_json
from tasks.launch import launch_program
from tasks.length import Limit, report_too_long
from tasks.logs import run_logger
from tasks.measured import Measured, load_measured, write_measured
from tasks.run import Result, Run

VERSION, REFERENCE_VERSION = 2, 2  # intervals are by prompt; gold answers are framed as the template frames them
LIKELIHOOD_FILE = "likelihood.json"
GOLD_FILE, PAIRS_FILE = "gold_likelihoods.parquet", "pair_likelihoods.parquet"  # in the folder of a set


@dataclass(frozen=True)
class PairsMeasured:
    """Pairs, what a reference says of them, and the loss that both come to.

    Attributes:
        pairs: Parquet file of Pair rows.
        reference: Parquet file of PairLikelihood rows, made by `measure_reference` of these pairs.
        expected: how many pairs there are expected to be, for the dry run.
        answers: folder of the opponent's answers, among them the rejected sides, which are described beside; SPIN's.
    """

    pairs: Artifact
    reference: Artifact
    beta: float
    loss: PreferenceLoss
    expected: int = 0
    answers: Artifact | None = None


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
        REFERENCE_VERSION,
        _held_as(config),
        {"policy": policy, **{f"pairs_{key}": artifact for key, artifact in pairs.items()}},
        command=_command(launch),
        estimate=_estimate(run, config, launch, 2 * expected_pairs, 60 * expected_pairs),
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
        command = launch_program(LIKELIHOOD, program, attempt, run.child_lock)
        some = {key: file for key, file in outputs.items() if count_rows(file)}  # all held-out answers may be gold
        metrics = {key: likelihood_metrics(read_rows(PairLikelihood, file)) for key, file in some.items()}
        write_json(attempt / LIKELIHOOD_FILE, {key: found.model_dump() for key, found in metrics.items()})
        rows = sum(count_rows(file) for file in outputs.values())
        return Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def measured_by(
    reference: Result,
    name: str,
    pairs: Artifact,
    config: PreferenceConfig,
    expected: int,
    answers: Artifact | None = None,
) -> PairsMeasured:
    """One of the sets of pairs that `measure_reference` measured, with the loss that is trained with."""
    return PairsMeasured(pairs, reference.artifact(f"{name}.parquet"), config.beta, config.loss, expected, answers)


def load_likelihood(result: Result) -> dict[str, LikelihoodMetrics]:
    """What `measure_reference` found, by set of pairs; nothing while it is only planned."""
    if result.finished is None:
        return {}
    found = json.loads((result.path / LIKELIHOOD_FILE).read_text())
    return {key: LikelihoodMetrics.model_validate(values) for key, values in found.items()}


def measure_likelihood(
    run: Run,
    name: str,
    policy: Artifact,
    gold: Mapping[str, Artifact],
    pairs: Mapping[str, PairsMeasured],
    pair_measure: Measure,
    config: TrainConfig,
    launch: LaunchConfig,
    seed: int,
    expected: int,
    against: Mapping[str, Result],
) -> Result:
    """Measure a policy on held-out rows without a verifier, all sets in one start of the program.

    Writes for each set what `tasks.measured` reads: the loss per token of gold answers, and the share of pairs whose
    chosen answer gained more over the reference than the rejected one, with DPO's metrics. The weights are held as
    training holds them. Answers that are longer than the policy's context, or missing, are left out and counted.

    Args:
        gold: set name → Parquet file of Problem rows.
        pairs: set name → pairs with their reference.
        pair_measure: what the share of pairs is called: PAIR_ACCURACY, or DISCRIMINATOR for gold over own answers.
        seed: of the bootstrap.
        expected: answers to be measured, for the dry run.
        against: name, such as "base" → earlier measurement that this one is compared with, row by row. The pairs of two
            discriminators differ, so those are not compared.

    Raises:
        ChildError: the program failed.
    """
    semantic: dict[str, Any] = _held_as(config)
    if pairs:
        losses = {key: {"beta": one.beta, "loss": one.loss} for key, one in pairs.items()}
        semantic |= {"pairs": losses, "pair_measure": pair_measure.name}
    inputs = {"policy": policy, **{f"gold_{key}": artifact for key, artifact in gold.items()}}
    inputs |= {f"pairs_{key}": one.pairs for key, one in pairs.items()}
    inputs |= {f"reference_{key}": one.reference for key, one in pairs.items()}
    inputs |= {f"answers_{key}": one.answers for key, one in pairs.items() if one.answers}
    inputs |= {f"against_{key}": result.artifact() for key, result in against.items()}
    estimate = _estimate(run, config, launch, expected, 120 * expected)
    stage = Stage(name, VERSION, semantic, inputs, seed, command=_command(launch), estimate=estimate)

    def work(attempt: Path) -> Outcome:
        gold_files = {key: attempt / key / GOLD_FILE for key in gold}
        pair_files = {key: attempt / key / PAIRS_FILE for key in pairs}
        for file in (*gold_files.values(), *pair_files.values()):
            file.parent.mkdir(exist_ok=True)
        program = LikelihoodProgram(
            policy=policy.path,
            model_code=run.model_code,
            gold=[artifact.path for artifact in gold.values()],
            gold_outputs=list(gold_files.values()),
            pairs=[one.pairs.path for one in pairs.values()],
            outputs=list(pair_files.values()),
            dtype=config.dtype,
            quantize=config.quantize,
            launch=launch,
        )
        command = launch_program(LIKELIHOOD, program, attempt, run.child_lock)
        earlier = {other: _comparable(load_measured([result])) for other, result in against.items()}
        for key in {**gold, **pairs}:
            found: dict[str, Sequence[MeasuredRow]] = {}
            details = {}
            if key in gold:
                found[LOSS.name] = loss_rows(read_rows(GoldLikelihood, gold_files[key]))
                details[LOSS.name] = loss_details(found[LOSS.name])
            if key in pairs:
                rows, figures = _of_pairs(pair_files[key], pairs[key])
                figures |= _of_answers(pairs[key], gold_files.get(key))
                found[pair_measure.name], details[pair_measure.name] = rows, figures
            write_measured(attempt / key, found, seed, earlier, details)
        given, counts = _count(
            (artifact.path for artifact in gold.values()),
            (one.pairs.path for one in pairs.values()),
            (*gold_files.values(), *pair_files.values()),
        )
        return Outcome(given, counts["kept"], _report(run, policy, counts), command=tuple(command))

    return run.execute(stage, work)


def _of_pairs(file: Path, pairs: PairsMeasured) -> tuple[list[MeasuredRow], dict[str, float]]:
    """The rows of a pair measure, and DPO's metrics of the same pairs."""
    ours = list(read_rows(PairLikelihood, file))
    reference = list(read_rows(PairLikelihood, pairs.reference.path))
    ratios = log_ratios(ours, reference)
    return accuracy_rows(ours, reference), preference_metrics(ratios, pairs.beta, pairs.loss) if ratios else {}


def _of_answers(pairs: PairsMeasured, gold: Path | None) -> dict[str, float]:
    """How the opponent's answers are in form, beside gold answers to the same prompts."""
    if pairs.answers is None or gold is None:
        return {}
    lengths = {row.problem_id: row.tokens for row in read_rows(GoldLikelihood, gold)}
    answers = [sample for sample in read_rows(Sample, pairs.answers.path) if sample.problem_id in lengths]
    if not answers:
        return {}
    found = degeneration(answers, lengths)
    lengths_told = {"mean_tokens": found.mean_tokens, "gold_tokens": found.gold_tokens}
    return lengths_told | {"length_ratio": found.length_ratio, "repeated": found.repeated, "ended": found.ended}


def _comparable(measured: Measured) -> Measured:
    """A measurement without those of its measures that are of other rows each time."""
    kept = {
        key: {name: found for name, found in measures.items() if name != DISCRIMINATOR.name}
        for key, measures in measured.estimates.items()
    }
    return replace(measured, estimates=kept)


def _count(gold: Iterable[Path], pairs: Iterable[Path], written: Iterable[Path]) -> tuple[int, Counter[str]]:
    """How many rows there were, and what became of them."""
    responses = Counter(row.response is not None for file in gold for row in read_rows(Problem, file))
    given = responses.total() + sum(map(count_rows, pairs))
    kept = sum(map(count_rows, written))
    counts = Counter({"kept": kept, "no_answer": responses[False], "too_long": given - kept - responses[False]})
    return given, counts


def _report(run: Run, policy: Artifact, counts: Counter[str]) -> dict[str, int]:
    """Log what was left out, and return the counts for the stage's manifest."""
    if counts["no_answer"]:
        run_logger().warning("%d held-out rows have no gold answer and are left out", counts["no_answer"])
    if not counts["kept"]:
        run_logger().warning("None of the held-out rows can be measured, so there is nothing to compare")
    dropped = {"no_answer": counts["no_answer"]} if counts["no_answer"] else {}
    if counts["too_long"]:
        limit = Limit(context_length(load_config(policy.path, run.model_code)), "the model's context")
        dropped |= report_too_long(Counter({name: counts[name] for name in ("kept", "too_long")}), limit)
    return dropped


def _held_as(config: TrainConfig) -> dict[str, Any]:
    """What of a training's settings changes likelihoods."""
    return {"dtype": config.dtype, "quantize": config.quantize}


def _command(launch: LaunchConfig) -> str:
    return " ".join(launch_command(LIKELIHOOD, launch, Path("likelihood.json")))


def _estimate(run: Run, config: TrainConfig, launch: LaunchConfig, samples: int, disk_bytes: int) -> Estimate:
    return Estimate(
        samples=samples,
        disk_bytes=disk_bytes,
        gpu_bytes=weights_bytes_per_device(run.parameters, config, launch),
        devices=launch.processes,
    )
