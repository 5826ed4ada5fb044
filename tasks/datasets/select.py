"""The stage `select`: chooses the scored samples to train on. In process."""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field

from data.errors import RunFailedError
from data.files import write_json
from data.rows import Example, Problem, Sample, Score
from data.selection import select_examples
from data.storage import read_rows, write_rows
from data.wording import counted
from models.config_base import Config
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SELECTION, EXAMPLES = "selection.json", "examples.parquet"


class SelectConfig(Config):
    """Which samples are trained on."""

    min_reward: Annotated[float, Field(description="Keep samples of at least this reward.")] = 1.0
    max_per_problem: Annotated[int, Field(ge=1, description="Keep at most this many per problem.")] = 10


class NothingKeptError(RunFailedError):
    """No sample was good enough to be trained on."""


def select(at: Place, problems: Artifact, samples: Artifact, scores: Artifact, config: SelectConfig) -> Result:
    """Write the samples to train on to `examples.parquet`; counts by reason go to `selection.json`.

    Raises:
        NothingKeptError: there is nothing to train on.
    """
    inputs = {"problems": problems, "samples": samples, "scores": scores}
    most = min(samples.expected, problems.expected * config.max_per_problem)
    stage = Stage(
        at.stage("select"),
        VERSION,
        config.model_dump(mode="json"),
        inputs,
        estimate=Estimate(disk_bytes=1_000_000),
        expected={EXAMPLES: most},
    )

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
        kept = write_rows(Example, attempt / EXAMPLES, rows)
        if not kept:
            raise nothing_kept(counts)
        write_json(attempt / SELECTION, dict(counts))
        dropped = {reason: n for reason, n in counts.items() if reason not in ("samples", "kept")}
        return Outcome(counts["samples"], kept, dropped, said=selected(counts, config))

    return at.run.execute(stage, work)


def selected(counts: Counter[str], config: SelectConfig) -> str:
    """The log's summary of selected answers."""
    good = counts["kept"] + counts["duplicate"] + counts["over_limit"]
    kind, reward = "answer", f" with a reward of at least {config.min_reward:g}"
    if config.min_reward == 1:
        kind, reward = "correct answer", ""
    limit = f"≤ {config.max_per_problem:,} per problem, distinct"
    return f"{counts['kept']:,} of {counted(good, kind)}{reward} kept ({limit})"


def nothing_kept(counts: Counter[str]) -> NothingKeptError:
    """The error if no sample can be trained on, with the reasons and what to change."""
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common() if reason not in ("samples", "kept"))
    return NothingKeptError(
        f"None of the {counts['samples']:,} samples can be trained on ({reasons}). Nothing was trained; the samples "
        "and scores are kept.",
        "The problems are too hard for this policy, or its answers do not end as the reward expects.",
        "Use a stronger --model, easier problems, more generate.samples, a larger generate.max_tokens if answers are "
        "truncated, or --few-shot examples that show the format of an answer.",
    )
