"""The stages that measure a win rate: a policy answers held-out prompts, and a fixed judge compares two policies.

Both sides answer greedily, and the judge sees every pair in both orders. Two identical answers are a tie, without
asking the judge. An answer cut off at the token limit is shown as it is, and counted: the comparison is of what a user
would get. The rows of a measurement are the judge's preference for our answer, from 0 to 1, by prompt.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from data.errors import RunFailedError
from data.metrics import Interval
from data.rows import MeasuredRow, Problem, Sample, Score
from data.sides import OURS, THEIRS, Sides, side_by_side
from data.storage import count_rows, read_rows, write_rows
from data.win_rate import Comparison, win_rate
from data.wording import and_left_out, counted
from models.asking.judge import RATES
from models.config import ScoreJob
from tasks.rollouts.generate import Sampling, generate_command, generate_job, generation_estimate, run_generation
from tasks.rollouts.judge_reward import Judge, judge_command
from tasks.rollouts.measured import write_measured
from tasks.rollouts.win_rate_settings import WinRateConfig
from tasks.stage.contract import JUDGE, Artifact, Estimate, Outcome, Stage
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result

VERSION = 2  # a length-controlled rate only if the lengths can determine it
SET_THAT_DECIDES = "validation"
ANSWERS = "greedy"  # the folder of a set's answers, as in `evaluate`, whose answers can be used too
COMPARED, JUDGED = "compared", "judged"  # for each opponent: pairs of answers, and the judge's verdicts on them
NO_GOLD, UNREAD = "no gold answer", "no reply of the judge that can be read"
MOST_UNREAD = 0.5  # of the comparisons: with more, the rate would cover only what the judge finds easy

Opponents = Mapping[str, Result | None]


class WinRateError(RunFailedError):
    """A win rate cannot be computed; the message says why and what to do."""


@dataclass(frozen=True)
class Comparing:
    """Settings of the stages that compare answers. `sampling` gives only the token limit and dtype."""

    config: WinRateConfig
    sampling: Sampling

    @property
    def judge(self) -> Judge:
        return Judge(config=self.config.judge)


def answer_prompts(at: Place, policy: Artifact, sets: Mapping[str, Artifact], how: Comparing) -> Result:
    """Generate a policy's greedy answers to the compared prompts of each set, in `<set>/greedy`."""
    greedy, most = how.sampling.greedy, how.config.prompts
    estimates = [generation_estimate(at.run, greedy, _at_most(most, p.expected)) for p in sets.values()]
    stage = Stage(
        at.stage("answers"),
        VERSION,
        {"sampling": greedy.config.model_dump(mode="json"), "prompts": most},
        {"policy": policy} | _problems(sets),
        at.seed,
        resumable=True,
        command=" ".join(generate_command(Path("generate.json"))),
        estimate=Estimate.one_after_another(estimates),
    )

    def work(attempt: Path) -> Outcome:
        jobs = []
        for key, problems in sets.items():
            asked = attempt / f".{key}.parquet"  # hidden, since it is a copy
            write_rows(Problem, asked, islice(read_rows(Problem, problems.path), most))
            jobs.append(generate_job(at, asked, attempt / key / ANSWERS, greedy))
        prompts = counted(sum(count_rows(job.problems) for job in jobs), "prompt")
        run_logger().info("%s × 1 greedy answer with the policy of %s", prompts, at.run.maker(policy))
        command = run_generation(at.run, attempt, policy, jobs, greedy.engine)
        rows = sum(count_rows(job.output) for job in jobs)
        return Outcome(rows, rows, command=tuple(command))

    return at.run.execute(stage, work)


def measure_win_rate(
    at: Place, ours: Result, sets: Mapping[str, Artifact], opponents: Opponents, how: Comparing
) -> Result:
    """Let the judge compare a policy's answers with those of each opponent, on each set of prompts.

    The measure `win_rate` is against the first opponent; metrics against the others are in its details. Prompts without
    a readable reply, and against gold those without a gold answer, are left out and counted. A set in which the first
    opponent has no answers gets no win rate; only validation must have one.

    Args:
        ours: a stage with answers in `<set>/greedy`: `answer_prompts` or `evaluate`.
        opponents: the same for each opponent by name; None for the problems' gold answers.

    Raises:
        WinRateError: too few of the judge's replies are readable, or no validation prompt has a gold answer.
        ChildError: the judging program failed.
    """
    judge, engine = how.judge, how.sampling.engine
    weights = judge.artifact(offline=at.run.planning)
    answered: Opponents = {"ours": ours, **opponents}
    inputs = {
        f"{side}_{key}": result.artifact(f"{key}/{ANSWERS}")
        for side, result in answered.items()
        if result
        for key in sets
    }
    stage = Stage(
        at.stage("win_rate"),
        VERSION,
        {"judge": judge.identity(), "against": list(opponents), "prompts": how.config.prompts},
        inputs | _problems(sets) | ({"judge": weights} if weights else {}),
        at.seed,
        resumable=True,
        command=" ".join(judge_command(Path(JUDGE))),
        estimate=judge.estimate(weights, engine) if weights else Estimate(),
    )

    def work(attempt: Path) -> Outcome:
        sides = {
            key: {other: _lay_out(attempt / key / other, problems, ours, opponents[other], how) for other in opponents}
            for key, problems in sets.items()
        }
        if SET_THAT_DECIDES in sides and not _first(sides[SET_THAT_DECIDES]).lengths:
            raise WinRateError(
                f"No {SET_THAT_DECIDES} prompt has a gold answer, so there is nothing to compare the policy's "
                "answers with.",
                what_next="Put base first in the win rate's `against`, or give held-out demonstrations.",
            )
        jobs = [
            ScoreJob(problems=sets[key].path, samples=folder / COMPARED, output=folder / JUDGED)
            for key, found in sides.items()
            if _first(found).lengths
            for folder in (attempt / key / other for other, laid_out in found.items() if laid_out.asked)
        ]
        program = judge.program(at, jobs, engine).model_copy(update={"truncated": True})
        command = judge.run(at, attempt, program) if jobs else ()
        counts = sum((_measure(attempt / key, found, at.seed) for key, found in sides.items()), Counter[str]())
        dropped = {reason: counts[reason] for reason in (NO_GOLD, UNREAD) if counts[reason]}
        said = counted(counts[COMPARED], "comparison") + and_left_out(dropped)
        return Outcome(counts.total(), counts[COMPARED], dropped, tuple(command), said=said)

    return at.run.execute(stage, work)


def _lay_out(folder: Path, prompts: Artifact, ours: Result, theirs: Result | None, how: Comparing) -> Sides:
    """Write the pairs of differing answers into `folder`/compared, in shards, for the judge.

    Args:
        folder: `<set>/<opponent>` of the attempt.
    """
    sides, set_name = Sides(), folder.parent.name
    problems = islice(read_rows(Problem, prompts.path), how.config.prompts)
    mine = read_rows(Sample, ours.path / set_name / ANSWERS)
    others = read_rows(Sample, theirs.path / set_name / ANSWERS) if theirs else None
    pairs = side_by_side(problems, mine, others, sides)
    per_shard = max(1, how.sampling.engine.shard_size // (2 * how.config.judge.opinions))
    (folder / COMPARED).mkdir(parents=True, exist_ok=True)
    for stale in (folder / COMPARED).glob("*.parquet"):  # from an earlier attempt, which may have had larger shards
        stale.unlink()
    number = 0
    while batch := list(islice(pairs, per_shard)):
        write_rows(Sample, folder / COMPARED / f"{number:06d}.parquet", (sample for pair in batch for sample in pair))
        number += 1
    if not sides.lengths:
        run_logger().warning("No %s prompt has a gold answer, so there is no win rate against gold", set_name)
    return sides


def _measure(folder: Path, found: Mapping[str, Sides], seed: int) -> Counter[str]:
    """Write the measure of one set from the judge's verdicts on each opponent's answers.

    Returns:
        The number of comparisons, and of those left out, by reason.
    """
    counts: Counter[str] = Counter()
    rows: list[MeasuredRow] = []
    details: dict[str, float] = {}
    for other, sides in found.items():
        counts[NO_GOLD] += sides.without_gold
        if not sides.lengths or not _first(found).lengths:
            continue
        compared, rates = _judged(folder / other, sides)
        counts[UNREAD] += len(sides.lengths) - len(compared)
        counts[COMPARED] += len(compared)
        told = win_rate(compared, seed)
        figures = _figures("length_controlled", told.length_controlled) | _noted(compared, sides, rates)
        if rows:
            figures |= _figures("win_rate", told.raw)
            details |= {f"{other}_{name}": value for name, value in figures.items()}
        else:
            rows, details = [MeasuredRow(one.problem_id, 0, one.preference) for one in compared], figures
    write_measured(folder, {"win_rate": rows}, seed, details={"win_rate": details})
    return counts


def _judged(folder: Path, sides: Sides) -> tuple[list[Comparison], dict[str, Any]]:
    """Return every comparison with the judge's preference, and the judge's rates, empty if it was not asked."""
    if not sides.asked:
        return sides.comparisons({}), {}
    preferences = {s.problem_id: s.value for s in read_rows(Score, folder / JUDGED) if s.index == OURS}
    rates = json.loads((folder / JUDGED / RATES).read_text())
    unread = sum(value is None for value in preferences.values())
    if unread > MOST_UNREAD * sides.asked:
        raise WinRateError(
            f"The judge gave no readable reply to {unread:,} of {sides.asked:,} comparisons with {folder.name}, so "
            "the win rate cannot be computed.",
            f"First failure: {rates['first_failure']}.",
            "Use another judge (or a longer context, if it is too short) and run the same command again: the "
            "answers are kept.",
        )
    return sides.comparisons(preferences), rates


def _first(found: Mapping[str, Sides]) -> Sides:
    """The sides of the first opponent, which gives the win rate."""
    return next(iter(found.values()))


def _noted(compared: Sequence[Comparison], sides: Sides, rates: Mapping[str, Any]) -> dict[str, float]:
    """Mean lengths in characters, counts of longer, truncated and identical answers, and the judge's rates."""
    return {
        "length_ours": fmean(one.ours for one in compared),
        "length_theirs": fmean(one.theirs for one in compared),
        "longer_ours": sum(one.ours > one.theirs for one in compared),
        "longer_theirs": sum(one.ours < one.theirs for one in compared),
        "truncated_ours": sides.truncated[OURS],
        "truncated_theirs": sides.truncated[THEIRS],
        "same": len(sides.same),
        "unread": len(sides.lengths) - len(compared),
    } | {name: rates[name] for name in ("parse_rate", "flip_rate") if rates.get(name) is not None}


def _figures(name: str, interval: Interval | None) -> dict[str, float]:
    if interval is None:
        return {}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _problems(sets: Mapping[str, Artifact]) -> dict[str, Artifact]:
    return {f"problems_{key}": problems for key, problems in sets.items()}


def _at_most(most: int | None, expected: int) -> int:
    return expected if most is None else min(most, expected)
