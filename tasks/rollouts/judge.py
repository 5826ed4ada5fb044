"""Judging by a language model: what a stage needs to run it, and what is refused before anything heavy starts."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.judge import GRADER
from models.config import EngineConfig, JudgeConfig, JudgeProgram, ScoreJob
from models.estimate import generation_bytes_per_device, parameters_of
from models.judge import RATES
from tasks.policies.asked import asked_artifact, asked_identity, check_asked, engine_room
from tasks.stage.contract import JUDGE, Artifact, Estimate
from tasks.stage.logs import run_logger
from tasks.stage.process import run_child
from tasks.stage.progress import progress_logger
from tasks.stage.run import Run

ROLE = "judge"
LOW_ENTROPY = 0.1  # bits: 99 of 100 replies say the same
HIGH_FLIP_RATE = 0.4  # a judge that names a place at random reaches 0.5
ENOUGH = 10  # replies from which on such shares mean something


def judge_identity(config: JudgeConfig) -> dict[str, Any]:
    """What of a judge's settings changes the result. The weights of one that runs here are in `judge_artifact`."""
    own = asked_identity(config, told_apart=("max_tokens", "passes_at"))
    return {"grader": GRADER, "passes_at": config.threshold, "max_tokens": config.reply_tokens, **own}


def judge_artifact(config: JudgeConfig, offline: bool = False) -> Artifact | None:
    """The judge's folder and its digest, see `tasks.policies.asked.asked_artifact`."""
    return asked_artifact(config, ROLE, offline)


def judge_estimate(config: JudgeConfig, artifact: Artifact | None, engine: EngineConfig) -> Estimate:
    """Memory and devices that a judge takes: none if it is at an endpoint, where `artifact` is None."""
    if artifact is None:
        return Estimate()
    weights = generation_bytes_per_device(parameters_of(artifact.path), config.dtype, engine)
    return Estimate(gpu_bytes=weights, devices=engine.tensor_parallel_size)


def check_judge(config: JudgeConfig) -> None:
    """Refuse a judge that cannot work, see `tasks.policies.asked.check_asked`."""
    check_asked(config, ROLE)


def run_judge(
    run: Run,
    attempt: Path,
    jobs: list[ScoreJob],
    config: JudgeConfig,
    engine: EngineConfig,
    seed: int,
    grader: str = GRADER,
    truncated: bool = False,
) -> Sequence[str]:
    """Run the judging program on `jobs` and log its rates; shards that an earlier attempt judged are kept.

    Args:
        truncated: samples that were cut off are judged as well.

    Raises:
        ChildError: the program failed.
    """
    artifact = judge_artifact(config)
    folder = artifact.path if artifact else None
    told: dict[str, Any] = {"engine": engine, "seed": seed, "grader": grader, "truncated": truncated}
    program = JudgeProgram(judge=config, policy=folder, jobs=jobs, **told)
    file = attempt / JUDGE
    file.write_text(program.model_dump_json(indent=2))
    command = judge_command(file)
    logger = progress_logger(run.directory, attempt, "judge")
    with engine_room(config) as environment:
        run_child(command, attempt / "log.txt", run.child_lock, logger, environment)
    for job in jobs:
        log_rates(json.loads((job.output / RATES).read_text()))
    return command


def judge_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.judge", str(config)]


def log_rates(rates: Mapping[str, Any]) -> None:
    """Log how a judge did, as `judge.json` has it, and warn of what makes its scores worth little."""
    logger = run_logger()
    words = [f"{rates['parsed']:,} of {rates['asked']:,} replies read"]
    if rates["comparisons"]:
        words.append(f"{rates['flip_rate']:.1%} of {rates['comparisons']:,} comparisons differ between the two orders")
    if rates["parsed"]:
        said = ", ".join(f"{value}: {n:,}" for value, n in rates["distribution"].items())
        words.append(f"it said {said} (entropy {rates['entropy_bits']:.2f} bits)")
    logger.info("Judge: %s.", "; ".join(words))
    for warning in warnings(rates):
        logger.warning(warning)


def warnings(rates: Mapping[str, Any]) -> list[str]:
    """What in a judge's rates makes its scores worth little, and what to do."""
    found = []
    if unread := rates["asked"] - rates["parsed"]:
        found.append(
            f"The judge gave no reply that can be read to {unread:,} of {rates['asked']:,} questions, which count for "
            f"nothing. The first: {rates['first_failure']}"
        )
    if rates["parsed"] >= ENOUGH and rates["entropy_bits"] < LOW_ENTROPY:
        usual = max(rates["distribution"], key=rates["distribution"].get)
        found.append(
            f"The judge nearly always says {usual} (entropy {rates['entropy_bits']:.2f} bits), so its scores tell "
            f"answers hardly apart. Use a stronger judge, or the other kind."
        )
    if rates["comparisons"] >= ENOUGH and rates["flip_rate"] > HIGH_FLIP_RATE:
        found.append(
            f"The judge changes its mind with the order of the answers in {rates['flip_rate']:.0%} of the comparisons. "
            f"Use a stronger judge, or pointwise."
        )
    if rates["alone"]:
        found.append(f"{rates['alone']:,} samples have no score: their problem has no other finished one to compare.")
    return found
