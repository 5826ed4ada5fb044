"""The stage `likelihood`: a policy's likelihood of held-out gold answers and pairs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.degeneration import degeneration
from data.likelihood import (
    accuracy_rows,
    log_ratios,
    loss_details,
    loss_rows,
    margin_rows,
    preference_metrics,
)
from data.measures import LOSS, MEASURES, OWN_MARGIN, OWN_PAIRS, Measure
from data.rows import GoldLikelihood, MeasuredRow, PairLikelihood, Problem, Sample
from data.storage import count_rows, read_rows
from data.wording import counted
from models.config import LikelihoodProgram, TrainConfig
from models.launch import LIKELIHOOD
from models.loading import room_of
from tasks.datasets.row_length import Limit, report_too_long
from tasks.policies.reference import PairsMeasured, held_as, likelihood_command, likelihood_estimate
from tasks.rollouts.measured import Measured, load_measured, write_measured
from tasks.stage.contract import Artifact, Outcome, Stage
from tasks.stage.launch import Training, launch_program
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result, Run

VERSION = 2  # intervals are by prompt
GOLD_FILE, PAIRS_FILE = "gold_likelihoods.parquet", "pair_likelihoods.parquet"  # in the folder of a set


@dataclass(frozen=True)
class HeldOutRows:
    """Held-out rows that are measured without a verifier, by set.

    Attributes:
        gold: Parquet files of Problem rows.
        pairs: pairs with their reference.
        pair_measure: PAIR_ACCURACY, or DISCRIMINATOR if the pairs are gold over the policy's own answers, or OWN_PAIRS.
    """

    gold: Mapping[str, Artifact]
    pairs: Mapping[str, PairsMeasured]
    pair_measure: Measure

    def __bool__(self) -> bool:
        return bool(self.gold or self.pairs)


def measure_likelihood(
    at: Place, policy: Artifact, rows: HeldOutRows, training: Training[TrainConfig], against: Mapping[str, Result]
) -> Result:
    """Measure a policy on held-out rows without a verifier, all sets in one start of the program.

    Writes for each set what `tasks.rollouts.measured` reads: the loss per token of gold answers, and the share of pairs
    whose chosen answer gained more over the reference than the rejected one, with DPO's metrics. The weights have the
    same dtype and quantization as in training. Answers that are missing or longer than the policy's context are left
    out and counted.

    Args:
        against: name, such as "base" → earlier measurement that this one is compared with, row by row. Two
            discriminators have different pairs, so they are not compared.

    Raises:
        ChildError: the program failed.
    """
    run, gold, pairs, config = at.run, rows.gold, rows.pairs, training.config
    semantic: dict[str, Any] = held_as(config)
    if pairs:
        losses = {key: {"beta": one.beta, "loss": one.loss} for key, one in pairs.items()}
        semantic |= {"pairs": losses, "pair_measure": rows.pair_measure.name}
    inputs = {"policy": policy, **{f"gold_{key}": artifact for key, artifact in gold.items()}}
    inputs |= {f"pairs_{key}": one.pairs for key, one in pairs.items()}
    inputs |= {f"reference_{key}": one.reference for key, one in pairs.items()}
    inputs |= {f"answers_{key}": one.answers for key, one in pairs.items() if one.answers}
    inputs |= {f"against_{key}": result.artifact() for key, result in against.items()}
    expected = sum(a.expected for a in gold.values()) + sum(one.pairs.expected for one in pairs.values())
    stage = Stage(
        at.stage("likelihood"),
        VERSION,
        semantic,
        inputs,
        at.seed,
        command=likelihood_command(training.launch),
        estimate=likelihood_estimate(run, training, expected, 120 * expected),
    )

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
            launch=training.launch,
        )
        given = sum(count_rows(file) for file in (*program.gold, *program.pairs))
        run_logger().info("Likelihood of %s under the policy of %s", counted(given, "held-out row"), run.maker(policy))
        command = launch_program(LIKELIHOOD, program, attempt, run.child_lock)
        earlier = {other: _comparable(load_measured([result])) for other, result in against.items()}
        for key in {**gold, **pairs}:
            found: dict[str, Sequence[MeasuredRow]] = {}
            details = {}
            if key in gold:
                found[LOSS.name] = loss_rows(read_rows(GoldLikelihood, gold_files[key]))
                details[LOSS.name] = loss_details(found[LOSS.name])
            if key in pairs:
                ours, figures = _of_pairs(pair_files[key], pairs[key])
                figures |= _of_answers(pairs[key], gold_files.get(key))
                found[rows.pair_measure.name], details[rows.pair_measure.name] = ours, figures
                if rows.pair_measure is OWN_PAIRS:
                    found[OWN_MARGIN.name] = _margins(pair_files[key], pairs[key])
            write_measured(attempt / key, found, at.seed, earlier, details)
        given, counts = _count(
            (artifact.path for artifact in gold.values()),
            (one.pairs.path for one in pairs.values()),
            (*gold_files.values(), *pair_files.values()),
        )
        return Outcome(given, counts["kept"], _report(run, policy, counts), command=tuple(command))

    return run.execute(stage, work)


def _of_pairs(file: Path, pairs: PairsMeasured) -> tuple[list[MeasuredRow], dict[str, float]]:
    """Return the rows of a pair measure, and DPO's metrics of the same pairs."""
    ours = list(read_rows(PairLikelihood, file))
    reference = list(read_rows(PairLikelihood, pairs.reference.path))
    ratios = log_ratios(ours, reference)
    return accuracy_rows(ours, reference), preference_metrics(ratios, pairs.beta, pairs.loss) if ratios else {}


def _margins(file: Path, pairs: PairsMeasured) -> list[MeasuredRow]:
    return margin_rows(list(read_rows(PairLikelihood, file)), read_rows(PairLikelihood, pairs.reference.path))


def _of_answers(pairs: PairsMeasured, gold: Path | None) -> dict[str, float]:
    """Return degeneration metrics of the opponent's answers, next to gold answers to the same prompts."""
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
    """Drop the measures whose rows differ from one measurement to the next."""
    kept = {
        key: {name: found for name, found in measures.items() if not MEASURES[name].moves}
        for key, measures in measured.estimates.items()
    }
    return replace(measured, estimates=kept)


def _count(gold: Iterable[Path], pairs: Iterable[Path], written: Iterable[Path]) -> tuple[int, Counter[str]]:
    """Count the rows given, and those kept and left out."""
    responses = Counter(row.response is not None for file in gold for row in read_rows(Problem, file))
    given = responses.total() + sum(map(count_rows, pairs))
    kept = sum(map(count_rows, written))
    counts = Counter({"kept": kept, "no_answer": responses[False], "too_long": given - kept - responses[False]})
    return given, counts


def _report(run: Run, policy: Artifact, counts: Counter[str]) -> dict[str, int]:
    """Log what was left out, and return the counts for the stage's manifest."""
    if counts["no_answer"]:
        run_logger().warning("%s without a gold answer left out", counted(counts["no_answer"], "held-out row"))
    if not counts["kept"]:
        run_logger().warning("None of the held-out rows can be measured, so nothing is compared")
    dropped = {"no_answer": counts["no_answer"]} if counts["no_answer"] else {}
    if counts["too_long"]:
        limit = Limit(room_of(policy.path, run.model_code), "the model's context")
        dropped |= report_too_long(Counter({name: counts[name] for name in ("kept", "too_long")}), limit)
    return dropped
