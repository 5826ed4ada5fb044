"""Reward models: checking one, the program that scores with one, and the stage that measures one."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from data.calibration import RewardMetrics, reward_metrics
from data.chat_template import naming
from data.files import write_json
from data.render import first_of_each_shape, judged_token_ids, prompt_token_ids, require_end
from data.rewards import RewardError
from data.rows import PairReward, Problem
from data.storage import count_rows, read_rows
from data.wording import counted
from models.config import EngineConfig, PairScoreJob, RewardModelConfig, RewardScoreProgram, ScoreJob, ScoringConfig
from models.config_base import Config
from models.estimate import BYTES, generation_bytes_per_device, parameters_of
from models.loading import ModelError, check_code, load_config, load_tokenizer
from tasks.policies.model_folder import code_identity, folder_digest, resolve_model
from tasks.rollouts.model_reward import ModelReward
from tasks.stage.contract import SCORING, Artifact, Estimate, Outcome, Stage
from tasks.stage.devices import gpus_held
from tasks.stage.progress import progress_logger
from tasks.stage.run import Place, Result, Run

VERSION = 3  # intervals are by prompt
GRADER = "reward-model@2"
METRICS, REWARDS = "metrics.json", "rewards.parquet"
CHANCE = 0.5
REWARD = "reward"  # the folder of the stages that make a loop's reward model


class TrainedReward(ModelReward):
    """A reward model: a one-label classifier trained on pairs."""

    grader: ClassVar[str] = GRADER

    config: RewardModelConfig

    def identity(self) -> dict[str, Any]:
        """The settings that change the scores. The weights are in `artifact`."""
        config = self.config
        own = config.model_dump(mode="json", exclude={"path", "model_code", "model_revision", "batch_tokens"})
        if config.path is None or config.model_code == "refuse":
            return own
        return own | code_identity(resolve_model(config.path, config, offline=True), config.model_code)

    def artifact(self, offline: bool = False) -> Artifact:
        """The reward model as a stage's input. A hub model that is not downloaded yet has no digest.

        Raises:
            ModelError: no path, or no model at the path.
        """
        if self.config.path is None:
            self.check()
        folder = resolve_model(str(self.config.path), self.config, offline=True)
        return Artifact(folder or Path(str(self.config.path)), folder_digest(folder) if folder else None)

    def estimate(self, artifact: Artifact, engine: EngineConfig) -> Estimate:
        weights = generation_bytes_per_device(parameters_of(artifact.path), self.config.dtype, EngineConfig())
        return Estimate(gpu_bytes=weights, devices=1)

    def check(self) -> None:
        """Check that it can be used, downloading it from the hub if needed. Loads no weights.

        Raises:
            ModelError, TemplateError: see `read_reward_model`.
        """
        read_reward_model(self.config)

    def check_problems(self, problems: Iterable[Problem]) -> None:
        """Render one problem of each kind.

        Raises:
            TemplateError: naming the problem that the chat template fails on.
        """
        _, tokenizer = read_reward_model(self.config)
        for problem in first_of_each_shape(problems):
            with naming(f"Problem {problem.id} of {problem.source}, for the reward model"):
                prompt_token_ids(tokenizer, problem.messages)

    def score(self, at: Place, attempt: Path, jobs: list[ScoreJob], engine: EngineConfig) -> None:
        """Run the scoring program.

        Raises:
            ModelError: see `read_reward_model`.
            ChildError: the program failed.
        """
        run_scoring(at.run, attempt, self.program(jobs), score_command)

    def program(self, jobs: list[ScoreJob]) -> RewardScoreProgram:
        """The scoring program's configuration.

        Raises:
            ModelError: see `read_reward_model`.
        """
        config = self.config
        return RewardScoreProgram(
            model=read_reward_model(config)[0],
            model_code=config.model_code,
            jobs=jobs,
            scoring=ScoringConfig(batch_tokens=config.batch_tokens, dtype=config.dtype),
            passes_at=config.passes_at,
            max_length=config.max_length,
            grader=GRADER,
        )


def read_reward_model(config: RewardModelConfig) -> tuple[Path, Any]:
    """Return the folder of a usable reward model, downloaded from the hub if needed, and its tokenizer.

    Raises:
        ModelError: no path, no model there, not a one-label classifier, or a tokenizer without a chat template.
        TemplateError: the chat template does not work, or nothing marks the end of an answer.
    """
    if config.path is None:
        raise ModelError(
            "The reward is a reward model, but no model is given.",
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
    # Anything else would get a randomly initialized head and score with it.
    if not any(name.endswith("ForSequenceClassification") for name in names) or kind.num_labels != 1:
        raise ModelError(
            f"{config.path} is not a reward model: its config.json says {', '.join(names)} with {kind.num_labels} "
            "labels, but a reward model is a ...ForSequenceClassification with 1.",
            what_next=f"Train one: autodidact reward-model --model {config.path} --pairs FILE.",
        )
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of the reward model {config.path} has no chat template, so prompts cannot be rendered for "
            "it.",
            what_next="Put the template that it was trained with into its folder, as chat_template.jinja.",
        )
    require_end(tokenizer, f"the reward model {config.path}")
    with naming(f"The reward model {config.path}"):
        judged_token_ids(tokenizer, [{"role": "user", "content": "Which answer is better?"}], "This one.")
    return folder, tokenizer


def require_tokens_of(tokenizer: Any, config: RewardModelConfig) -> None:
    """Refuse a reward model that values are to begin with, but that reads other tokens than the policy writes.

    Raises:
        RewardError: it does.
    """
    ours, theirs = tokenizer.get_vocab(), read_reward_model(config)[1].get_vocab()
    if ours == theirs:
        return
    other = sorted({token for token, _ in ours.items() ^ theirs.items()})
    raise RewardError(
        f"The reward model {config.path} has another vocabulary than the policy, in {len(other):,} tokens such as "
        f"{other[0]!r}, so values of the policy's tokens cannot begin with it.",
        what_next="Set train.value_from to policy. The reward model then only scores, which it does by text.",
    )


def measure_reward_model(at: Place, model: Artifact, pairs: Artifact, config: ScoringConfig) -> Result:
    """Score both sides of held-out pairs into `rewards.parquet`; the metrics go to `metrics.json`."""
    run = at.run
    stage = Stage(
        at.stage("measure"),
        VERSION,
        {"dtype": config.dtype},
        {"model": model, "pairs": pairs},
        at.seed,
        command=" ".join(score_command(Path(SCORING))),
        estimate=Estimate(
            samples=2 * pairs.expected,
            disk_bytes=60 * pairs.expected,
            gpu_bytes=None if run.parameters is None else run.parameters * BYTES[config.dtype],
            devices=1,
        ),
    )

    def work(attempt: Path) -> Outcome:
        job = PairScoreJob(pairs=pairs.path, output=attempt / REWARDS)
        told = RewardScoreProgram(model=model.path, model_code=run.model_code, pair_jobs=[job], scoring=config)
        command = run_scoring(run, attempt, told, score_command)
        metrics = reward_metrics(read_rows(PairReward, job.output), at.seed)
        write_json(attempt / METRICS, metrics.model_dump())
        said = counted(metrics.pairs, "held-out pair") + " measured"
        return Outcome(metrics.pairs, count_rows(job.output), command=tuple(command), said=said)

    return run.execute(stage, work)


def load_reward_metrics(result: Result) -> RewardMetrics | None:
    """Read the result of `measure_reward_model`; None while it is only planned."""
    if result.finished is None:
        return None
    return RewardMetrics.model_validate(json.loads((result.path / METRICS).read_text()))


def require_preference(measured: Result, forced: bool) -> None:
    """Refuse a reward model that may prefer nothing on held-out pairs.

    Raises:
        RewardError: the interval of its accuracy holds one half, or lies below.
    """
    metrics = load_reward_metrics(measured)
    if metrics is None or forced or metrics.accuracy.low > CHANCE:
        return
    found = metrics.accuracy
    raise RewardError(
        f"On {counted(metrics.pairs, 'held-out pair')}, the reward model prefers the chosen answer in "
        f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}] of the cases: perhaps no more often than by chance.",
        what_next="Give more or cleaner pairs, train it longer (reward_train), or go on all the same (forced: true).",
    )


def score_command(config: Path) -> list[str]:
    return [sys.executable, "-m", "models.training.reward_score", str(config)]


def run_scoring(run: Run, attempt: Path, program: Config, command_of: Callable[[Path], list[str]]) -> Sequence[str]:
    """Run a scoring program, and return its command.

    Raises:
        ChildError: the program failed.
    """
    config = attempt / SCORING
    config.write_text(program.model_dump_json(indent=2))
    command = command_of(config)
    with gpus_held():
        run.start(command, attempt / "log.txt", run.child_lock, progress_logger(run.directory, attempt))
    return command
