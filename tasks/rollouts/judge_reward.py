"""Judging by a language model: how a stage runs it, and what is refused before anything heavy starts."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from data.judge_questions import GRADER
from data.wording import counted
from models.asking.judge import RATES
from models.config import EngineConfig, JudgeConfig, JudgeProgram, ScoreJob
from models.estimate import generation_bytes_per_device, parameters_of
from tasks.policies.asked_model import asked_artifact, asked_identity, check_asked, engine_room
from tasks.rollouts.model_reward import ModelReward
from tasks.stage.contract import JUDGE, Artifact, Estimate
from tasks.stage.logs import run_logger
from tasks.stage.progress import progress_logger
from tasks.stage.run import Place

ROLE = "judge"
LOW_ENTROPY = 0.1  # bits: 99 of 100 replies are the same
HIGH_FLIP_RATE = 0.4  # a judge that picks a position at random reaches 0.5
ENOUGH = 10  # replies needed for such rates to mean something


class Judge(ModelReward):
    """A language model that judges answers, here or at an endpoint."""

    grader: ClassVar[str] = GRADER
    draws: ClassVar[bool] = True

    config: JudgeConfig

    def identity(self) -> dict[str, Any]:
        """The settings that change the result. The weights of a judge that runs here are in `artifact`."""
        own = asked_identity(self.config, told_apart=("max_tokens", "passes_at"))
        config = self.config
        return {"grader": GRADER, "passes_at": config.threshold, "max_tokens": config.reply_tokens, **own}

    def artifact(self, offline: bool = False) -> Artifact | None:
        """The judge's folder and digest, see `tasks.policies.asked_model.asked_artifact`."""
        return asked_artifact(self.config, ROLE, offline)

    def estimate(self, artifact: Artifact, engine: EngineConfig) -> Estimate:
        weights = generation_bytes_per_device(parameters_of(artifact.path), self.config.dtype, engine)
        return Estimate(gpu_bytes=weights, devices=engine.tensor_parallel_size, cached=True)

    def check(self) -> None:
        """Refuse a judge that cannot work, see `tasks.policies.asked_model.check_asked`."""
        check_asked(self.config, ROLE)

    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        self.run(at, attempt, self.program(at, jobs, engine))

    def rates(self, scores: Path) -> dict[str, Any]:
        return dict(json.loads((scores / RATES).read_text()))

    def program(self, at: Place, jobs: list[ScoreJob], engine: EngineConfig) -> JudgeProgram:
        """The judging program's configuration."""
        artifact = self.artifact()
        folder = artifact.path if artifact else None
        return JudgeProgram(judge=self.config, policy=folder, jobs=jobs, engine=engine, seed=at.seed, grader=GRADER)

    def run(self, at: Place, attempt: Path, program: JudgeProgram) -> Sequence[str]:
        """Run the judging program and log its rates; shards that an earlier attempt judged are kept.

        Raises:
            ChildError: the program failed.
        """
        file = attempt / JUDGE
        file.write_text(program.model_dump_json(indent=2))
        command = judge_command(file)
        logger = progress_logger(at.run.directory, attempt, "judge")
        with engine_room(self.config) as environment:
            at.run.start(command, attempt / "log.txt", at.run.child_lock, logger, environment)
        for job in program.jobs:
            log_rates(self.rates(job.output))
        return command


def judge_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.asking.judge", str(config)]


def log_rates(rates: Mapping[str, Any]) -> None:
    """Log a judge's rates from `judge.json`, and warn of what makes its scores unreliable."""
    logger = run_logger()
    words = [f"{rates['parsed']:,} of {counted(rates['asked'], 'reply', 'replies')} parsed"]
    if rates["comparisons"]:
        words.append(f"{rates['flip_rate']:.1%} of {rates['comparisons']:,} comparisons differ between the two orders")
    if rates["parsed"]:
        said = ", ".join(f"{value}: {n:,}" for value, n in rates["distribution"].items())
        words.append(f"verdicts {said} (entropy {rates['entropy_bits']:.2f} bits)")
    logger.info("Judge: %s.", "; ".join(words))
    for warning in warnings(rates):
        logger.warning(warning)


def warnings(rates: Mapping[str, Any]) -> list[str]:
    """Warn of rates that make a judge's scores unreliable, and say what to do."""
    found = []
    if unread := rates["asked"] - rates["parsed"]:
        found.append(
            f"The judge gave no readable reply to {unread:,} of {counted(rates['asked'], 'question')}, which are left "
            f"out. First failure: {rates['first_failure']}"
        )
    if rates["parsed"] >= ENOUGH and rates["entropy_bits"] < LOW_ENTROPY:
        usual = max(rates["distribution"], key=rates["distribution"].get)
        found.append(
            f"The judge nearly always replies {usual} (entropy {rates['entropy_bits']:.2f} bits), so its scores "
            f"barely distinguish answers. Use a stronger judge, or the other kind."
        )
    if rates["comparisons"] >= ENOUGH and rates["flip_rate"] > HIGH_FLIP_RATE:
        found.append(
            f"The judge changes its verdict with the order of the answers in {rates['flip_rate']:.0%} of the "
            f"comparisons. Use a stronger judge, or pointwise."
        )
    if rates["alone"]:
        found.append(
            f"{counted(rates['alone'], 'sample')} without a score: no other finished sample of the problem to compare."
        )
    return found
