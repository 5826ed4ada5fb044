"""The stage `evaluate`: a policy's greedy and sampled answers to held-out problems, graded and compared.

Outcomes per problem are kept in `<set>/outcomes.json`, so that later comparisons are paired.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, model_validator

from data.files import write_json
from data.metrics import Outcome, SetMetrics, bootstrap_interval, majority_correct, paired_difference, pass_at_k
from data.rows import Sample, Score
from data.scoring import Tally
from data.storage import count_rows, read_rows
from data.wording import counted
from models.config import SamplingConfig, ScoreJob
from models.config_base import Config
from tasks.rollouts.generate import Sampling, generate_command, generate_job, generation_estimate, run_generation
from tasks.rollouts.rewards import Judging, RewardConfig, judging_estimate, reward_identity, reward_inputs
from tasks.rollouts.scoring import score_jobs
from tasks.stage import contract
from tasks.stage.contract import Artifact, Estimate, Stage
from tasks.stage.logs import run_logger
from tasks.stage.run import Place, Result

VERSION = 3  # answers end where the template ends a turn
METRICS = "metrics.json"
OUTCOMES = "outcomes.json"
_OUTCOMES = TypeAdapter(list[Outcome])


class EvaluateConfig(Config):
    """How a policy is measured: one greedy answer per problem, and `samples` sampled ones (arXiv 2312.06585, 5)."""

    samples: Annotated[int, Field(ge=1, description="Sampled answers per problem, for pass@k and maj@k.")] = 64
    temperature: Annotated[float, Field(gt=0, description="Temperature of the sampled answers.")] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1, description="Nucleus probability of the sampled answers.")] = 0.95
    pass_at: Annotated[tuple[int, ...], Field(description="The k of pass@k; each at most `samples`.")] = (1, 8, 64)
    reward: Annotated[
        RewardConfig | None, Field(description="Reward for held-out problems. Default: the training reward.")
    ] = None

    @model_validator(mode="after")
    def _k_within_samples(self) -> "EvaluateConfig":
        if wrong := [k for k in self.pass_at if not 1 <= k <= self.samples]:
            raise ValueError(
                f"evaluate.pass_at {wrong} is not within 1…{self.samples}, the samples per problem. "
                f"Raise evaluate.samples or drop those values."
            )
        return self


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: metrics and per-problem outcomes by set."""

    path: Path
    metrics: Mapping[str, SetMetrics]
    outcomes: Mapping[str, list[Outcome]]


@dataclass(frozen=True)
class Evaluating:
    """Settings of a stage that evaluates a policy's answers. `sampling` gives only the token limit and dtype."""

    config: EvaluateConfig
    sampling: Sampling
    judging: Judging

    @property
    def draws(self) -> dict[str, Sampling]:
        """How the greedy and the sampled answers are drawn, by output folder."""
        config, told = self.config, self.sampling.config
        drawn = {"samples": config.samples, "temperature": config.temperature, "top_p": config.top_p, "top_k": 0}
        sampled = SamplingConfig(max_tokens=told.max_tokens, dtype=told.dtype, **drawn)
        return {"greedy": self.sampling.greedy, "sampled": Sampling(sampled, self.sampling.engine)}


def evaluate(
    at: Place, policy: Artifact, sets: Mapping[str, Artifact], how: Evaluating, against: Mapping[str, Result]
) -> Result:
    """Evaluate a policy on each set of problems, and compare it with earlier evaluations of the same sets.

    Args:
        sets: set name → problems.
        against: name, such as "base" → the evaluation that greedy pass@1 is compared with.
    """
    run, reward, draws = at.run, how.judging.reward, how.draws
    semantic = {kind: draw.config.model_dump(mode="json") for kind, draw in draws.items()}
    models = reward_inputs(run, reward)
    inputs = {"policy": policy, **{f"problems_{key}": problems for key, problems in sets.items()}, **models}
    inputs |= {f"against_{key}": result.artifact() for key, result in against.items()}
    estimates = [generation_estimate(run, draw, p.expected) for p in sets.values() for draw in draws.values()]
    stage = Stage(
        at.stage("evaluate"),
        VERSION,
        semantic | reward_identity(reward) | {"pass_at": list(how.config.pass_at)},
        inputs,
        at.seed,
        resumable=True,
        command=" ".join(generate_command(Path("generate.json"))),
        estimate=Estimate.one_after_another([*estimates, judging_estimate(how.judging, models)]),
    )

    def work(attempt: Path) -> contract.Outcome:
        jobs = [
            generate_job(at, problems.path, attempt / key / kind, draw)
            for key, problems in sets.items()
            for kind, draw in draws.items()
        ]
        asked = " and ".join(counted(count_rows(problems.path), f"{key} problem") for key, problems in sets.items())
        drawn = f"1 greedy and {counted(how.config.samples, 'sampled answer')}"
        run_logger().info("%s × %s with the policy of %s", asked, drawn, run.maker(policy))
        command = run_generation(run, attempt, policy, jobs, how.sampling.engine)
        scored = [ScoreJob(problems=job.problems, samples=job.output, output=scores_folder(job.output)) for job in jobs]
        tallies = score_jobs(at, attempt, scored, how.judging)
        rows = 0
        earlier = {key: load_evaluation(result) for key, result in against.items()}
        for key in sets:
            outcomes, metrics = _measure(attempt / key, tallies, how.config, at.seed)
            differences = {
                other: paired_difference(outcomes, evaluation.outcomes[key], at.seed)
                for other, evaluation in earlier.items()
                if evaluation is not None
            }
            write_json(attempt / key / OUTCOMES, _OUTCOMES.dump_python(outcomes, mode="json"))
            compared = metrics.model_copy(update={"against": differences})
            write_json(attempt / key / METRICS, compared.model_dump(mode="json", by_alias=True))
            rows += len(outcomes)
        return contract.Outcome(rows, rows, command=tuple(command))

    return run.execute(stage, work)


def load_evaluation(result: Result) -> Evaluation | None:
    """Read a finished evaluation; None while it is only planned."""
    if result.finished is None:
        return None
    sets = sorted(path.parent.name for path in result.path.glob(f"*/{METRICS}"))
    metrics = {key: SetMetrics.model_validate_json((result.path / key / METRICS).read_text()) for key in sets}
    outcomes = {key: _OUTCOMES.validate_json((result.path / key / OUTCOMES).read_text()) for key in sets}
    return Evaluation(result.path, metrics, outcomes)


def coverage(ours: list[Outcome], base: list[Outcome]) -> tuple[int, int]:
    """Count the problems solved greedily that the base did not solve, and those that only the base solved."""
    solved = {o.problem_id for o in ours if o.greedy_correct}
    before = {o.problem_id for o in base if o.greedy_correct}
    return len(solved - before), len(before - solved)


def _measure(
    folder: Path, tallies: Mapping[Path, Tally], config: EvaluateConfig, seed: int
) -> tuple[list[Outcome], SetMetrics]:
    greedy_scores, sampled_scores = (scores_folder(folder / kind) for kind in ("greedy", "sampled"))
    outcomes, majority = [], []
    greedy = zip(read_rows(Sample, folder / "greedy"), read_rows(Score, greedy_scores), strict=True)
    for (sample, score), votes in zip(greedy, _by_problem(sampled_scores), strict=True):
        majority.append(majority_correct([(s.answer, s.verdict == "correct") for s in votes]))
        outcomes.append(
            Outcome(
                problem_id=sample.problem_id,
                greedy_correct=score.verdict == "correct",
                greedy_verdict=score.verdict,
                greedy_text=sample.text,
                samples=len(votes),
                correct=sum(s.verdict == "correct" for s in votes),
                majority_correct=majority[-1],
            )
        )
    counted = [tallies[scores] for scores in (greedy_scores, sampled_scores)]
    answers = sum(t.samples for t in counted)
    metrics = SetMetrics(
        problems=len(outcomes),
        greedy=bootstrap_interval([float(o.greedy_correct) for o in outcomes], seed),
        pass_at={
            k: bootstrap_interval([pass_at_k(o.samples, o.correct, k) for o in outcomes], seed) for k in config.pass_at
        },
        majority_at={config.samples: bootstrap_interval(majority, seed)},
        samples_per_problem=config.samples,
        temperature=config.temperature,
        top_p=config.top_p,
        verdicts=dict(Counter(o.greedy_verdict for o in outcomes)),
        truncated=sum(t.truncated for t in counted) / answers,
        mean_tokens=sum(t.tokens for t in counted) / answers,
    )
    return outcomes, metrics


def scores_folder(samples: Path) -> Path:
    """The folder with the scores of a set's greedy or sampled answers."""
    return samples.with_name(f"{samples.name}-scores")


def _by_problem(scores: Path) -> Iterator[list[Score]]:
    for _, group in groupby(read_rows(Score, scores), key=lambda s: s.problem_id):
        yield list(group)
