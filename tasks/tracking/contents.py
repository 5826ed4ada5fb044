"""The contents of a run's report, read from its stages' files."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from data.arithmetic import ARITHMETIC, has_false_step
from data.measures import LEFT_OUT, MEASURES, WIN_RATE, Estimated, difference, shared
from data.metrics import Interval, Outcome
from data.prepare.overlap import Repeated
from data.rows import SPLITS, Problem
from data.storage import count_by, read_rows
from tasks.datasets.inputs import SHOWN
from tasks.datasets.pairs import PAIRS_FILE
from tasks.datasets.problems import DATA
from tasks.datasets.select import SELECTION
from tasks.policies.reference import load_likelihood
from tasks.report.content import Answer, DataReport, IterationReport, SideBySide
from tasks.rollouts.evaluate import Evaluation, coverage, load_evaluation
from tasks.rollouts.measured import Measured, load_measured
from tasks.rollouts.score import SPENT, TALLY
from tasks.stage.contract import JOURNAL
from tasks.stage.iteration import Iteration
from tasks.stage.run import Result
from tasks.tracking.points import HELD_OUT

HELD_OUT_ROWS = "held-out rows"
CHARTED = (  # of training rows
    *("loss", "reward", "kl", "entropy", "rewards/margins", "rewards/accuracies", "margin", "accuracy", "grad_norm"),
    *("length", "truncated", "without_spread", "clipped", "drift", "tokens_per_second"),
)
SIDE_BY_SIDE = 20
Finals = tuple[Mapping[str, Result], Mapping[str, Result]]


def iteration_report(iteration: Iteration, base: Iteration, measure: str | None = None) -> IterationReport:
    """Read an iteration from its stages, whichever of them measured it.

    Args:
        measure: the one that decides. It is compared with the base's here if the stage has not done so.
    """
    evaluation, first = (evaluation_of(measured.stages) for measured in (iteration, base))
    gained = lost = None
    if iteration.number and evaluation is not None and first is not None:
        gained, lost = coverage(evaluation.outcomes["validation"], first.outcomes["validation"])
    seconds = {name: s.finished.manifest.seconds for name, s in iteration.stages.items() if s.finished is not None}
    if iteration.number == 0 and iteration.policy.finished is not None:
        seconds = {"base": iteration.policy.finished.manifest.seconds} | seconds
    tally = json_of(iteration, TALLY) or {}
    return IterationReport(
        iteration=iteration.number,
        validation=evaluation.metrics["validation"] if evaluation else None,
        measures=_measures(iteration, base, measure),
        selection=json_of(iteration, SELECTION),
        verdicts=tally.get("verdicts"),
        first_round=tally.get("first_round"),
        spent=tally.get(SPENT, {}),
        coverage_gained=gained,
        coverage_lost=lost,
        seconds=seconds,
    )


def held_out(final: Finals, seed: int) -> dict[str, dict[str, tuple[Estimated | None, Estimated]]]:
    """Every measure of the base and the best policy on the sets that no decision has used, the test set first.

    If both were measured, they are compared row by row here unless the stages have done so.
    """
    base, best = (load_measured(stages.values()) for stages in final)
    found: dict[str, dict[str, tuple[Estimated | None, Estimated]]] = {}
    for name in sorted(best.estimates, key=lambda name: name != "test"):
        known = [measure for measure in MEASURES if best.get(name, measure) is not None]
        found[name] = {measure: _pair(base, best, name, measure, seed) for measure in known}
    return found


def data_report(problems: Result | None, iterations: Sequence[Iteration]) -> DataReport:
    """Describe the problems, and the training prompts, of problems or a user's pairs, that repeat others."""
    stages = [stage for iteration in iterations for stage in iteration.stages.values()]
    stages = [problems, *stages] if problems else stages
    noticed = [json.loads((stage.path / DATA).read_text()) for stage in stages if (stage.path / DATA).exists()]
    return DataReport(
        sources=_sources(problems, iterations),
        dropped=problems.finished.manifest.dropped if problems and problems.finished else {},
        files=_first(notes.get("files", {}) for notes in noticed),
        skipped=_first(notes.get("skipped_files", {}) for notes in noticed),
        noticed=Counter[str]() + sum((Counter(_counts(notes)) for notes in noticed), Counter()),
        repeated=[Repeated(**shown) for notes in noticed for shown in notes["repeated"]],
    )


def side_by_side(problems: Result | None, final: Finals) -> list[SideBySide]:
    """The base's and the best policy's answers to the first test problems; empty if answers were not verified."""
    base, ours = (evaluation_of(stages) for stages in final)
    if problems is None or base is None or ours is None or "test" not in ours.outcomes:
        return []
    before = {o.problem_id: o for o in base.outcomes["test"]}
    after = {o.problem_id: o for o in ours.outcomes["test"]}
    chosen = []
    for problem in islice(read_rows(Problem, problems.path / "test.parquet"), SIDE_BY_SIDE):
        first, last = before[problem.id], after[problem.id]
        chosen.append(
            SideBySide(
                prompt=problem.messages[-1]["content"],
                reference=problem.reference or "",
                base=_answer(problem, first),
                final=_answer(problem, last),
            )
        )
    return chosen


def _answer(problem: Problem, outcome: Outcome) -> Answer:
    """An answer, with whether its working is wrong though it is correct, where that can be told."""
    right = outcome.greedy_verdict == "correct" and problem.source == ARITHMETIC
    false_step = right and has_false_step(outcome.greedy_text)
    return Answer(text=outcome.greedy_text, verdict=outcome.greedy_verdict, false_step=false_step)


def rival(stages: Iterable[Result]) -> str | None:
    """The opponent whose answers a judge compared the policy's with, if any."""
    for stage in stages:
        told = stage.finished.manifest.config.get("against") if stage.finished is not None else None
        if told:  # one, or several of which the first gives the win rate
            return str(told if isinstance(told, str) else told[0])
    return None


def preference_curves(iterations: Sequence[Iteration]) -> dict[str, list[Interval | float | None]]:
    """For loops that train on pairs: the gap between gold and own answers, and the margin that training reached."""
    if not any("reference" in iteration.stages for iteration in iterations):
        return {}
    # An iteration's pairs are the previous policy's answers, and measured by that policy.
    measured = [load_likelihood(iteration.stages["reference"]) for iteration in iterations[1:]]
    gaps: list[Interval | float | None] = [*(found["current"].gap for found in measured), None]
    margins: list[Interval | float | None] = [_last_margin(iteration) for iteration in iterations]
    return {"log p(chosen) − log p(rejected), nats per pair": gaps, "reward margin at the end of training": margins}


def training_curves(iterations: Sequence[Iteration]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Metrics during training, of training rows and then of held-out ones: metric → iteration → step and value."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for iteration in iterations:
        for row in journal(iteration):
            for name, value in row.items():
                if (known := _curve(name)) is not None:
                    lines = curves.setdefault(known, {})
                    lines.setdefault(str(iteration.number), []).append((int(row["step"]), float(value)))
    return dict(sorted(curves.items(), key=lambda curve: curve[0].endswith(HELD_OUT_ROWS)))


def _curve(name: str) -> str | None:
    """The title of a metric's chart; None if it has none."""
    if name.startswith(HELD_OUT):
        return f"{name.removeprefix(HELD_OUT)}, {HELD_OUT_ROWS}"
    return f"{name.replace('_', ' ')}, training rows" if name in CHARTED else None


def journal(iteration: Iteration) -> list[dict[str, Any]]:
    """Read the training log. The numbers in a line depend on what was measured at its step."""
    file = iteration.stages["train"].path / JOURNAL if "train" in iteration.stages else None
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def json_of(iteration: Iteration, name: str) -> dict[str, Any] | None:
    """Read the file of that name from the first stage of the iteration that wrote one."""
    files = (stage.path / name for stage in iteration.stages.values())
    return next((dict(json.loads(file.read_text())) for file in files if file.exists()), None)


def pairs_file(iterations: Sequence[Iteration]) -> Path | None:
    """The pairs that a loop without problems trains on."""
    files = [stage.path / PAIRS_FILE for iteration in iterations for stage in iteration.stages.values()]
    return next((file for file in files if file.exists()), None)


def evaluation_of(stages: Mapping[str, Result]) -> Evaluation | None:
    """Load the evaluation of verified answers, if there is one."""
    return load_evaluation(stages["evaluate"]) if "evaluate" in stages else None


def _measures(iteration: Iteration, base: Iteration, decides: str | None) -> dict[str, Estimated]:
    ours = load_measured(iteration.stages.values())
    found = dict(ours.estimates.get("validation", {}))
    if iteration.number and decides in found and "base" not in found[decides].against:
        seeds = (stage.finished.manifest.seed for stage in iteration.stages.values() if stage.finished)
        theirs = load_measured(base.stages.values())
        found[decides] = _pair(theirs, ours, "validation", decides, next(iter(seeds)))[1]
    return found


def _pair(base: Measured, best: Measured, set_name: str, measure: str, seed: int) -> tuple[Estimated | None, Estimated]:
    before, after = base.get(set_name, measure), best.get(set_name, measure)
    assert after is not None
    if before is not None and "base" not in after.against:
        ours, theirs = best.rows(set_name, measure), base.rows(set_name, measure)
        if measure == WIN_RATE.name:
            one, two = shared(ours, theirs)
            if left_out := len(ours) + len(theirs) - 2 * len(one):
                after = after.model_copy(update={"details": {**after.details, LEFT_OUT: left_out}})
            ours, theirs = one, two
        if ours:
            compared = difference(ours, theirs, seed)
            after = after.model_copy(update={"against": {**after.against, "base": compared}})
    return before, after


def _last_margin(iteration: Iteration) -> float | None:
    margins = [row["rewards/margins"] for row in journal(iteration) if "rewards/margins" in row]
    return float(margins[-1]) if margins else None


def _sources(problems: Result | None, iterations: Sequence[Iteration]) -> dict[str, dict[str, int]]:
    if problems is None:
        pairs = pairs_file(iterations)
        return {"train": dict(count_by(pairs, "chosen_source"))} if pairs else {}
    splits = [split for split in SPLITS if f"{split}.parquet" in problems.finished_files()]
    return {split: dict(count_by(problems.path / f"{split}.parquet", "source")) for split in splits}


def _first(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Merge several tables, cut to as many entries as the log shows."""
    return dict(islice((item for part in parts for item in part.items()), SHOWN))


def _counts(notes: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in {**notes, **notes.get("noticed", {})}.items() if isinstance(value, int)}
