"""The stages `score` and `select`: rewards are applied to samples, and what is trained on is chosen. In process."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data.rewards import grader_version, load_reward
from data.rows import Example, Problem, Sample, Score
from data.scoring import Tally, check_errors, score_samples
from data.selection import select_examples
from data.storage import read_rows, write_rows
from models.config import Config
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.files import write_json
from tasks.run import Result, Run

VERSION = 1
SELECTION, TALLY = "selection.json", "tally.json"


class RewardConfig(Config):
    """What judges an answer."""

    name: Annotated[
        str, Field(description="A built-in reward, or a function of your own as package.module:function.")
    ] = "final_answer"
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="Stop if the reward fails on a larger share of the samples.")
    ] = 0.01


class SelectConfig(Config):
    """Which samples are trained on."""

    min_reward: Annotated[float, Field(description="Keep samples of at least this reward.")] = 1.0
    max_per_problem: Annotated[int, Field(ge=1, description="Keep at most this many per problem.")] = 10


class NothingKeptError(RuntimeError):
    """No sample was good enough to be trained on."""


def score(run: Run, name: str, problems: Artifact, samples: Artifact, config: RewardConfig) -> Result:
    """Score every sample into `scores.parquet`; counts by verdict go to `tally.json`."""
    reward = load_reward(config.name)
    grader = grader_version(reward)
    inputs = {"problems": problems, "samples": samples}
    stage = Stage(name, VERSION, {"grader": grader}, inputs, estimate=Estimate(disk_bytes=1_000_000))

    def work(attempt: Path) -> Outcome:
        tally = Tally()
        rows = score_samples(read_rows(Problem, problems.path), read_rows(Sample, samples.path), reward, grader, tally)
        count = write_rows(Score, attempt / "scores.parquet", rows)
        check_errors(tally, config.max_error_share)
        record = {"verdicts": dict(tally.verdicts), "truncated": tally.truncated, "tokens": tally.tokens}
        write_json(attempt / TALLY, record)
        return Outcome(count, count)

    return run.execute(stage, work)


def select(
    run: Run, name: str, problems: Artifact, samples: Artifact, scores: Artifact, config: SelectConfig
) -> Result:
    """Choose what is trained on into `examples.parquet`; counts by reason go to `selection.json`.

    Raises:
        NothingKeptError: there is nothing to train on.
    """
    inputs = {"problems": problems, "samples": samples, "scores": scores}
    stage = Stage(name, VERSION, config.model_dump(mode="json"), inputs, estimate=Estimate(disk_bytes=1_000_000))

    def work(attempt: Path) -> Outcome:
        counts: Counter[str] = Counter()
        rows = select_examples(
            read_rows(Problem, problems.path),
            read_rows(Sample, samples.path),
            read_rows(Score, scores.path),
            config.min_reward,
            config.max_per_problem,
            counts,
        )
        kept = write_rows(Example, attempt / "examples.parquet", rows)
        if not kept:
            raise NothingKeptError(nothing_kept(counts))
        write_json(attempt / SELECTION, dict(counts))
        dropped = {reason: n for reason, n in counts.items() if reason not in ("samples", "kept")}
        return Outcome(counts["samples"], kept, dropped)

    return run.execute(stage, work)


def nothing_kept(counts: Counter[str]) -> str:
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common() if reason not in ("samples", "kept"))
    return (
        f"None of the {counts['samples']:,} samples can be trained on ({reasons}). Nothing was trained; the samples "
        f"and scores are kept. The problems are too hard for this policy, or its answers do not end as the reward "
        f"expects: use a stronger --model, easier problems, more generate.samples, a larger generate.max_tokens if "
        f"answers are truncated, or --few-shot examples that show the form of an answer."
    )
