"""Reward models: whether one can be used, the program that scores with one, and the stage that measures one."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.calibration import RewardMetrics, reward_metrics
from data.chat_template import naming
from data.render import judged_token_ids, require_end
from data.rows import PairReward
from data.storage import count_rows, read_rows
from models.config import PairScoreJob, RewardModelConfig, RewardScoreProgram, ScoreJob, ScoringConfig
from models.estimate import BYTES
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.policies.model_folder import code_identity, folder_digest, resolve_model
from tasks.stage.contract import SCORING, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpus_held
from tasks.stage.files import write_json
from tasks.stage.process import run_child
from tasks.stage.progress import progress_logger
from tasks.stage.run import Result, Run

VERSION = 3  # intervals are by prompt
GRADER = "reward-model@2"
METRICS, REWARDS = "metrics.json", "rewards.parquet"


def reward_model_identity(config: RewardModelConfig) -> dict[str, Any]:
    """What of a reward model's settings changes the scores. Its weights are in `reward_model_artifact`."""
    own = config.model_dump(mode="json", exclude={"path", "model_code", "model_revision", "batch_tokens"})
    if config.path is None or config.model_code == "refuse":
        return own
    return own | code_identity(resolve_model(config.path, config, offline=True), config.model_code)


def check_reward_model(config: RewardModelConfig) -> Path:
    """The folder of a reward model that can be used; fetched from the hub if need be. Loads no weights.

    Raises:
        ModelError, TemplateError: see `read_reward_model`.
    """
    return read_reward_model(config)[0]


def read_reward_model(config: RewardModelConfig) -> tuple[Path, Any]:
    """The same with its tokenizer.

    Raises:
        ModelError: no path, no model there, no classifier of one label, or a tokenizer without chat template.
        TemplateError: the chat template does not work, or nothing tells the end of an answer.
    """
    if config.path is None:
        raise ModelError(
            "A reward model is to judge, and none is given.",
            what_next="Set its path to the best/policy of a reward-model run, or to a folder or hub id of a sequence "
            "classifier with one label.",
        )
    folder, code = resolve_model(config.path, config), config.model_code
    assert folder is not None
    check_code(folder, code, "AutoModelForSequenceClassification")
    try:
        kind, tokenizer = load_config(folder, code), load_tokenizer(folder, code)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{config.path} cannot be read as a reward model: {error}.",
            what_next="Give the best/policy of a reward-model run, or another sequence classifier.",
        ) from error
    names = kind.architectures or ["no architecture"]
    # Anything else would be given a head of random weights, and judge by those.
    if not any(name.endswith("ForSequenceClassification") for name in names) or kind.num_labels != 1:
        raise ModelError(
            f"{config.path} is no reward model: its config.json says {', '.join(names)} with {kind.num_labels} "
            "labels, and a reward model is a ...ForSequenceClassification with 1.",
            what_next=f"Train one: autodidact reward-model --model {config.path} --pairs FILE.",
        )
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of the reward model {config.path} has no chat template, so prompts cannot be rendered for "
            "it.",
            what_next="Put the one that it was trained with into its folder, as chat_template.jinja.",
        )
    require_end(tokenizer, f"the reward model {config.path}")
    with naming(f"The reward model {config.path}"):
        judged_token_ids(tokenizer, [{"role": "user", "content": "Which answer is better?"}], "This one.")
    return folder, tokenizer


def reward_model_artifact(config: RewardModelConfig) -> Artifact:
    """A reward model as a stage's input. One on the hub that is not fetched yet has no digest.

    Raises:
        ModelError: no path, or the path holds no model.
    """
    if config.path is None:
        check_reward_model(config)
    folder = resolve_model(str(config.path), config, offline=True)
    return Artifact(folder or Path(str(config.path)), folder_digest(folder) if folder else None)


def run_reward_scoring(
    run: Run, attempt: Path, jobs: list[ScoreJob], config: RewardModelConfig, grader: str = GRADER
) -> Sequence[str]:
    """Run the scoring program on `jobs`, return the command. Shards that an earlier attempt scored are kept.

    Args:
        grader: goes into every Score row.

    Raises:
        ModelError: see `check_reward_model`.
        ChildError: the program failed.
    """
    program = RewardScoreProgram(
        model=check_reward_model(config),
        model_code=config.model_code,
        jobs=jobs,
        scoring=ScoringConfig(batch_tokens=config.batch_tokens, dtype=config.dtype),
        passes_at=config.passes_at,
        max_length=config.max_length,
        grader=grader,
    )
    return _run_program(run, attempt, program)


def measure_reward_model(
    run: Run, name: str, model: Artifact, pairs: Artifact, config: ScoringConfig, seed: int, expected_pairs: int
) -> Result:
    """Score both sides of held-out pairs into `rewards.parquet`; what that comes to goes to `metrics.json`."""
    stage = Stage(
        name,
        VERSION,
        {"dtype": config.dtype},
        {"model": model, "pairs": pairs},
        seed,
        command=" ".join(score_command(Path(SCORING))),
        estimate=Estimate(
            samples=2 * expected_pairs,
            disk_bytes=60 * expected_pairs,
            gpu_bytes=None if run.parameters is None else run.parameters * BYTES[config.dtype],
            devices=1,
        ),
    )

    def work(attempt: Path) -> Outcome:
        job = PairScoreJob(pairs=pairs.path, output=attempt / REWARDS)
        told = RewardScoreProgram(model=model.path, model_code=run.model_code, pair_jobs=[job], scoring=config)
        command = _run_program(run, attempt, told)
        metrics = reward_metrics(read_rows(PairReward, job.output), seed)
        write_json(attempt / METRICS, metrics.model_dump())
        return Outcome(metrics.pairs, count_rows(job.output), command=tuple(command))

    return run.execute(stage, work)


def load_reward_metrics(result: Result) -> RewardMetrics | None:
    """What `measure_reward_model` found; None while it is only planned."""
    if result.finished is None:
        return None
    return RewardMetrics.model_validate(json.loads((result.path / METRICS).read_text()))


def score_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.reward_score", str(config)]


def _run_program(run: Run, attempt: Path, program: RewardScoreProgram) -> Sequence[str]:
    config = attempt / SCORING
    config.write_text(program.model_dump_json(indent=2))
    command = score_command(config)
    with gpus_held():
        run_child(command, attempt / "log.txt", run.child_lock, progress_logger(run.directory, attempt))
    return command
