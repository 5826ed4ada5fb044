"""The stage `label`: a model says which of two answers is better, with a probability (RLAIF, arXiv 2309.00267)."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from data.files import write_json
from data.judging import AGREES, DISAGREES, TIE
from data.label_questions import VERSION as QUESTIONS_VERSION
from data.labels import EVEN, Label, LabelTally
from data.measures import AGREEMENT
from data.pairing import comparable
from data.rewards import RewardError
from data.rows import MeasuredRow, Sample
from data.storage import read_rows
from data.wording import counted
from models.asking.label import ROLE
from models.config import EngineConfig, LabelerConfig, LabelProgram
from models.estimate import generation_bytes_per_device, parameters_of
from tasks.policies.asked_model import asked_artifact, asked_code
from tasks.rollouts.judge_agreement import LOW_AGREEMENT, SET, write_sides
from tasks.rollouts.measured import write_measured
from tasks.stage.contract import JUDGE, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpus_held
from tasks.stage.environment import SHARED_CPU
from tasks.stage.logs import run_logger
from tasks.stage.progress import progress_logger
from tasks.stage.run import Place, Result, Run

VERSION = 1
LABELS, RATES = "labels", "labels.json"
NO_LABEL = "no label"
HIGH_PLACE_BIAS = 0.5  # the smallest labeler of the paper has 56 %
ENOUGH = 10  # labels needed for such rates to mean something


@dataclass(frozen=True)
class Labeling:
    """How answers are labeled.

    Attributes:
        model: the labeler's folder.
    """

    config: LabelerConfig
    engine: EngineConfig
    model: Artifact

    def identity(self) -> dict[str, Any]:
        """The settings that change labels. The weights are an input."""
        told = self.config.model_dump(mode="json", exclude={"model", "model_code", "model_revision"})
        return {"questions": QUESTIONS_VERSION, **told} | asked_code(self.config.asked)

    def estimate(self, samples: int) -> Estimate:
        weights = generation_bytes_per_device(parameters_of(self.model.path), self.config.dtype, self.engine)
        devices = self.engine.tensor_parallel_size
        disk_bytes = 8 * samples * self.config.max_reasoning + 1_000_000
        return Estimate(samples=samples, disk_bytes=disk_bytes, gpu_bytes=weights, devices=devices, cached=True)


def labeling(run: Run, config: LabelerConfig, engine: EngineConfig, policy: Artifact) -> Labeling:
    """How answers are labeled: by a model of its own, or by a policy.

    Raises:
        ModelError: the labeler's folder is not a model.
    """
    if config.model is None:
        own = {"model": str(policy.path), "model_code": run.model_code}
        return Labeling(config.model_copy(update=own), engine, policy)
    model = asked_artifact(config.asked, ROLE, offline=run.planning)
    assert model is not None
    return Labeling(config, engine, model)


def label(at: Place, problems: Artifact, samples: Artifact, how: Labeling) -> Result:
    """Compare the answers to each problem two by two, into `labels/`, a file per shard; rates go to `labels.json`."""
    stage = Stage(
        at.stage("label"),
        VERSION,
        how.identity(),
        {"problems": problems, "samples": samples, ROLE: how.model},
        at.seed if how.config.principles else 0,
        resumable=True,
        estimate=how.estimate(samples.expected),
        expected={LABELS: samples.expected // 2},
    )

    def work(attempt: Path) -> Outcome:
        command = _run(at, attempt, how, problems.path, samples.path)
        rates, answers = _rates(read_rows(Label, attempt / LABELS)), Counter[str]()
        for _, drawn in groupby(read_rows(Sample, samples.path), key=lambda sample: sample.problem_id):
            comparable(list(drawn), answers)
        rates |= {"answers": {reason: n for reason, n in answers.items() if n}}
        write_json(attempt / RATES, rates)
        _log(rates)
        given, labeled = rates["compared"], rates["labeled"]
        said = f"{labeled:,} of {counted(given, 'comparison')} labeled"
        return Outcome(given, labeled, _without(given, labeled), tuple(command), said=said)

    return at.run.execute(stage, work)


def measure_labeler(at: Place, pairs: Artifact, how: Labeling) -> Result:
    """Label pairs whose better side people have named, as the measure `judge_agreement`, into `validation/`.

    Raises:
        RewardError: not one pair got a label.
    """
    stage = Stage(
        at.stage("judge"),
        VERSION,
        how.identity(),
        {"pairs": pairs, ROLE: how.model},
        at.seed,
        resumable=True,
        estimate=how.estimate(2 * pairs.expected),
    )

    def work(attempt: Path) -> Outcome:
        problems, samples, asked = write_sides(attempt, pairs.path, how.engine.shard_size)
        command = _run(at, attempt, how, problems, samples)
        rows = _agreement(read_rows(Label, attempt / LABELS))
        if not rows:
            raise RewardError(
                f"The labeler labeled none of {counted(len(asked), 'pair')} of people.",
                what_next=f"See why in {attempt / LABELS}. If they have no room in its context, lower "
                "labeler.max_reasoning.",
            )
        rates = _rates(read_rows(Label, attempt / LABELS))
        details = {name: rates[name] for name in ("place_bias", "entropy_bits") if rates[name] is not None}
        measured = write_measured(attempt / SET, {AGREEMENT.name: rows}, at.seed, details={AGREEMENT.name: details})
        shown = AGREEMENT.shown_interval(measured[AGREEMENT.name].value)
        if measured[AGREEMENT.name].value.value < LOW_AGREEMENT:
            run_logger().warning(
                "The labeler agrees with people on %s of the pairs, which is hardly more than chance. Use a stronger "
                "labeler, or another labeler.rubric.",
                shown,
            )
        _log(rates)
        said = f"the labeler agrees with people on {shown} of the pairs"
        return Outcome(len(asked), len(rows), _without(len(asked), len(rows)), tuple(command), said=said)

    return at.run.execute(stage, work)


def _without(given: int, labeled: int) -> dict[str, int]:
    return {NO_LABEL: given - labeled} if labeled < given else {}


def _agreement(labels: Iterable[Label]) -> list[MeasuredRow]:
    """For each labeled pair, whose chosen side is first, 1 if that is preferred, 0 if not, and a half if undecided."""
    values = [(one.problem_id, one.value) for one in labels if one.value is not None]
    return [
        MeasuredRow(name, 0, TIE if value == EVEN else AGREES if value > EVEN else DISAGREES) for name, value in values
    ]


def _run(at: Place, attempt: Path, how: Labeling, problems: Path, samples: Path) -> Sequence[str]:
    told: dict[str, Any] = {"labeler": how.config, "policy": how.model.path, "engine": how.engine, "seed": at.seed}
    told |= {"problems": problems, "samples": samples, "output": attempt / LABELS}
    file = attempt / JUDGE
    file.write_text(LabelProgram.model_validate(told).model_dump_json(indent=2))
    command = [sys.executable, "-m", "models.asking.label", str(file)]
    logger = progress_logger(at.run.directory, attempt, ROLE)
    with gpus_held():
        at.run.start(command, attempt / "log.txt", at.run.child_lock, logger, SHARED_CPU)
    return command


def _rates(labels: Iterable[Label]) -> dict[str, Any]:
    tally = LabelTally()
    for one in labels:
        tally.add(one)
    return tally.record()


def _log(rates: dict[str, Any]) -> None:
    logger = run_logger()
    if rates["first_failure"] is not None:
        logger.warning(
            "%s without a label. First failure: %s",
            counted(rates["compared"] - rates["labeled"], "comparison"),
            rates["first_failure"],
        )
    if not rates["labeled"]:
        return
    logger.info(
        "Labeler: the same place wins in both orders in %.1f %% of %s; entropy of labels %.2f bits.",
        100 * rates["place_bias"],
        counted(rates["labeled"], "comparison"),
        rates["entropy_bits"],
    )
    if rates["labeled"] >= ENOUGH and rates["place_bias"] > HIGH_PLACE_BIAS:
        logger.warning(
            "The labeler prefers a place and not an answer in %.0f %% of the comparisons. Use a stronger labeler.",
            100 * rates["place_bias"],
        )
