"""Judging by a language model: what a stage needs to run it, and what is refused before anything heavy starts."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from data.chat_template import naming
from data.errors import AutodidactError
from data.judge import GRADER
from data.render import prompt_token_ids
from models.config import EngineConfig, JudgeConfig, JudgeProgram, ScoreJob
from models.estimate import generation_bytes_per_device, parameters_of
from models.judge import RATES
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.artifacts import progress_logger
from tasks.contract import JUDGE, Artifact, Estimate
from tasks.devices import gpus_held
from tasks.environment import SHARED_CPU
from tasks.logs import run_logger
from tasks.model_folder import code_identity, folder_digest, resolve_model
from tasks.process import run_child
from tasks.run import Run

LOW_ENTROPY = 0.1  # bits: 99 of 100 replies say the same
HIGH_FLIP_RATE = 0.4  # a judge that names a place at random reaches 0.5
ENOUGH = 10  # replies from which on such shares mean something


class JudgeError(AutodidactError):
    """The judge cannot be used; the message says why and what to do."""


def judge_identity(config: JudgeConfig) -> dict[str, Any]:
    """What of a judge's settings changes the result. The weights of one that runs here are in `judge_artifact`."""
    elsewhere = {"model": config.model} if config.endpoint else {}
    told_apart = {"model", "model_code", "model_revision", "endpoint", "max_tokens", "passes_at"}
    own = config.model_dump(mode="json", exclude=told_apart) | _code(config)
    return {"grader": GRADER, "passes_at": config.threshold, "max_tokens": config.reply_tokens, **own, **elsewhere}


def _code(config: JudgeConfig) -> dict[str, Any]:
    if config.endpoint or not config.model or config.model_code == "refuse":
        return {}
    return code_identity(resolve_model(config.model, config, offline=True), config.model_code)


def judge_artifact(config: JudgeConfig, offline: bool = False) -> Artifact | None:
    """The judge's folder and its digest; None for one at an endpoint, of which nothing more than its name is known.

    The digest is None if `offline` and the model is not in the cache.

    Raises:
        JudgeError, ModelError: there is no judge, or it is no model.
    """
    if config.endpoint:
        return None
    if not config.model:
        raise JudgeError(
            "The judge has no model.",
            what_next="Give its `model`: a folder or a hub id, or a name and an `endpoint`.",
        )
    folder = resolve_model(config.model, config, offline)
    return Artifact(folder or Path(config.model), folder_digest(folder) if folder else None)


def judge_estimate(config: JudgeConfig, artifact: Artifact | None, engine: EngineConfig) -> Estimate:
    """Memory and devices that a judge takes: none if it is at an endpoint, where `artifact` is None."""
    if artifact is None:
        return Estimate()
    weights = generation_bytes_per_device(parameters_of(artifact.path), config.dtype, engine)
    return Estimate(gpu_bytes=weights, devices=engine.tensor_parallel_size)


def check_judge(config: JudgeConfig) -> None:
    """Refuse a judge that cannot work, before anything heavy starts. No endpoint is called.

    Raises:
        JudgeError, ModelError, TemplateError: no model or name, no URL of an endpoint, a folder that is no model, or a
            tokenizer that has no chat template that works, or is none that replies can be held to a form with.
    """
    if config.endpoint:
        _check_endpoint(config)
        return
    artifact = judge_artifact(config)
    assert artifact is not None
    check_code(artifact.path, config.model_code, "AutoModelForCausalLM")
    try:
        tokenizer = load_tokenizer(artifact.path, config.model_code)
        load_config(artifact.path, config.model_code)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"The judge {config.model} cannot be read as a model: {error}.",
            what_next="Give a folder as save_pretrained writes it, with the tokenizer.",
        ) from error
    if not tokenizer.chat_template:
        raise JudgeError(
            f"The tokenizer of the judge {config.model} has no chat template, so it cannot be asked anything.",
            what_next="Choose a model that was trained to answer, or put a chat_template.jinja into its folder.",
        )
    if not tokenizer.is_fast:
        raise JudgeError(
            f"The judge {config.model} has a slow tokenizer, with which replies cannot be held to a form.",
            what_next="Choose a model with a tokenizer.json, or serve it and give its `endpoint`.",
        )
    with naming(f"The judge {config.model}"):
        prompt_token_ids(tokenizer, [{"role": "user", "content": "Which answer is better?"}])


def _check_endpoint(config: JudgeConfig) -> None:
    shown = str(config.endpoint)
    try:
        url = urlsplit(shown)
        usable = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if usable and "@" in url.netloc:
        raise JudgeError(
            "The judge's endpoint holds a user or a password, which would be written to files.",
            what_next="Give the key in the environment variable OPENAI_API_KEY.",
        )
    if not usable:
        raise JudgeError(
            f"The judge's endpoint {shown!r} is no URL.",
            what_next="Give one such as http://localhost:8000/v1.",
        )
    if not config.model:
        raise JudgeError(
            f"The judge at {shown} has no model.",
            what_next="Give its `model`: the name that the server knows it by.",
        )


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
    if config.endpoint:
        run_child(command, attempt / "log.txt", run.child_lock, logger)
    else:
        with gpus_held():
            run_child(command, attempt / "log.txt", run.child_lock, logger, SHARED_CPU)
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
