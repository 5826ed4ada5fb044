"""What judges answers: one reward or several, how they are run over samples, and what of them changes the result.

Functions are applied here or by `tasks.rollouts.scorer`; rewards that are models are programs of their own.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from data.combining import Combination, Part
from data.formats import Use
from data.judge import GRADER as JUDGE_VERSION
from data.rewards import Reward, RewardError, grader_version, judged_by, load_reward, prepare_reward
from data.sandbox.isolation import Level
from data.scoring import Tally, TooManyErrorsError, check_errors
from data.storage import parquet_files
from models.config import Config, EngineConfig, JudgeConfig, RewardModelConfig, ScoreJob
from models.estimate import generation_bytes_per_device, parameters_of
from tasks.rollouts import scorer
from tasks.rollouts.judge import check_judge, judge_artifact, judge_estimate, judge_identity, run_judge
from tasks.rollouts.reward_model import GRADER as MODEL_VERSION
from tasks.rollouts.reward_model import (
    check_reward_model,
    reward_model_artifact,
    reward_model_identity,
    run_reward_scoring,
)
from tasks.rollouts.scorer import (
    ScorerProgram,
    is_scored,
    part_folder,
    read_tally,
    score_shard,
    scores_file,
    take,
    tally_file,
)
from tasks.stage.contract import SCORER, Artifact, Estimate
from tasks.stage.devices import visible_gpus
from tasks.stage.files import file_sha256
from tasks.stage.logs import run_logger
from tasks.stage.process import ChildError, run_child
from tasks.stage.run import Run

JUDGED, MODELLED = "judge", "reward-model"
MODELS = {JUDGED: JUDGE_VERSION, MODELLED: MODEL_VERSION}  # rewards that are models, with their versions
AHEAD = ".scored"  # what was scored while answers were still being generated, by content


class PartConfig(Config):
    """How one of several rewards counts."""

    weight: Annotated[float, Field(description="Factor of its value.")] = 1.0
    at_least: Annotated[
        float | None, Field(description="Its value counts as 1 from here on and as 0 below; none: as it is.")
    ] = None
    gate: Annotated[
        bool,
        Field(description="Whether an answer that does not reach `at_least`, or is not correct, is worth 0 in all."),
    ] = False


class LengthConfig(Config):
    """A penalty on long answers."""

    free_tokens: Annotated[int, Field(ge=0, description="Tokens that cost nothing.")] = 512
    per_token: Annotated[float, Field(gt=0, description="What each further one takes off the reward.")] = 0.001


class RewardConfig(Config):
    """What judges an answer."""

    name: Annotated[
        str,
        Field(
            description="A built-in reward, a function of your own as package.module:function, or a model: judge, "
            "reward-model."
        ),
    ] = "final_answer"
    judge: Annotated[JudgeConfig, Field(description="The model that judges, for the reward judge.")] = JudgeConfig()
    model: Annotated[RewardModelConfig, Field(description="The reward model, for the reward reward-model.")] = (
        RewardModelConfig()
    )
    parts: Annotated[
        dict[str, PartConfig],
        Field(default_factory=dict, description="Several rewards by name, whose weighted sum replaces the one above."),
    ]
    length: Annotated[LengthConfig | None, Field(description="A penalty on long answers; none: none.")] = None
    passes_at: Annotated[
        float, Field(description="Where several rewards make one: answers of at least this sum are correct.")
    ] = 1.0
    max_error_share: Annotated[
        float, Field(ge=0, le=1, description="Stop if the reward fails on a larger share of the samples.")
    ] = 0.01
    isolation: Annotated[
        Level,
        Field(
            description="How programs have to be shut in at the least. limits: only a user of their own and limits on "
            "what they take; for programs that you trust."
        ),
    ] = "bubblewrap"
    workers: Annotated[int, Field(ge=1, description="Processes that score; 1: this one, unless it is done ahead.")] = 1
    ahead: Annotated[
        bool | None,
        Field(description="Score answers while others are still being generated; none: where there is a GPU."),
    ] = None

    @model_validator(mode="after")
    def _parts_have_use(self) -> Self:
        if self.length and not self.parts:
            raise ValueError(
                "reward.length is taken off a sum of rewards, and reward.parts names none. Name them there, such as "
                "parts: {final_answer: {}}."
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.parts) or (self.name,)

    @property
    def judged(self) -> bool:
        """Whether a judge is asked."""
        return JUDGED in self.names

    @property
    def modelled(self) -> bool:
        """Whether a reward model is."""
        return MODELLED in self.names

    @property
    def functions(self) -> dict[str, Reward]:
        """The rewards that are functions, by name."""
        return {name: load_reward(name) for name in self.names if name not in MODELS}

    @property
    def runs_ahead(self) -> bool:
        """A model that judges needs the devices that the one which answers has."""
        return not {*self.names} & MODELS.keys() and (bool(visible_gpus()) if self.ahead is None else self.ahead)

    @property
    def combination(self) -> Combination | None:
        """How several rewards make one; None where there is one."""
        if not self.parts:
            return None
        parts = {name: Part(**part.model_dump()) for name, part in self.parts.items()}
        penalty = {} if self.length is None else self.length.model_dump()
        return Combination(parts, self.passes_at, **penalty)


def graders(config: RewardConfig) -> dict[str, str]:
    """Name and version of each reward, by name."""
    versions = {name: grader_version(reward) for name, reward in config.functions.items()}
    return {name: (MODELS | versions)[name] for name in config.names}


def reward_identity(config: RewardConfig) -> dict[str, Any]:
    """What of a reward changes the scores, for a stage's fingerprint; what is in `reward_inputs` is not."""
    models: dict[str, Any] = {JUDGED: judge_identity(config.judge)} if config.judged else {}
    if config.modelled:
        models[MODELLED] = reward_model_identity(config.model)
    if config.combination is None:
        return {"grader": graders(config)[config.name]} | models
    return {"graders": graders(config), "combination": asdict(config.combination)} | models


def reward_inputs(run: Run, config: RewardConfig) -> dict[str, Artifact]:
    """The models that judge, where they run here."""
    judge = judge_artifact(config.judge, offline=run.planning) if config.judged else None
    model = reward_model_artifact(config.model) if config.modelled else None
    return {name: artifact for name, artifact in ((JUDGED, judge), (MODELLED, model)) if artifact}


def judging_estimate(config: RewardConfig, inputs: Mapping[str, Artifact], engine: EngineConfig) -> Estimate:
    """Memory and devices that the models which judge take, one after another.

    Args:
        inputs: what `reward_inputs` gave.
    """
    parts = []
    if JUDGED in inputs:
        parts.append(judge_estimate(config.judge, inputs[JUDGED], engine))
    if MODELLED in inputs:
        weights = generation_bytes_per_device(parameters_of(inputs[MODELLED].path), config.model.dtype, EngineConfig())
        parts.append(Estimate(gpu_bytes=weights, devices=1))
    return Estimate.one_after_another(parts)


def check_reward(config: RewardConfig) -> None:
    """See that every reward can work here.

    Raises:
        RewardError, AskedModelError, ModelError: one cannot be loaded, or cannot work on this machine.
    """
    for reward in config.functions.values():
        prepare_reward(reward, config.isolation)
    if config.judged:
        check_judge(config.judge)
    if config.modelled:
        check_reward_model(config.model)


def problems_judged_by(*configs: RewardConfig) -> tuple[Use, Callable[[str | None], bool]]:
    """What data sets have to be read as, and whether a problem with a reference can be judged.

    A model judges any answer, so it needs prompts alone; so does a function that says so. Others need what they read.

    Raises:
        RewardError: two rewards need problems of different kinds.
    """
    functions = {name: reward for config in configs for name, reward in config.functions.items()}
    needs = {name: judged_by(reward) for name, reward in functions.items()}
    needs = {name: (use, can_grade) for name, (use, can_grade) in needs.items() if use != "prompts"}
    uses = {use for use, _ in needs.values()}
    if len(uses) > 1:
        raise RewardError(
            f"The rewards {' and '.join(needs)} need problems of different kinds.",
            what_next="Leave one out.",
        )
    return uses.pop() if uses else "prompts", lambda reference: all(grade(reference) for _, grade in needs.values())


def score_jobs(
    run: Run, attempt: Path, jobs: list[ScoreJob], config: RewardConfig, engine: EngineConfig, seed: int, stage: str
) -> dict[Path, Tally]:
    """Score the samples of all jobs; shards that an earlier attempt finished, or that were scored ahead, are kept.

    Where the reward failed on a sample ahead, or too often in all, that shard is scored again.

    Returns:
        What each job came to, by its output.

    Raises:
        RewardError: a reward cannot work here.
        TooManyErrorsError: a reward failed too often.
        ChildError: a program that scores failed.
    """
    for reward in config.functions.values():
        prepare_reward(reward, config.isolation)
    if config.judged:
        run_judge(run, attempt, _part_jobs(jobs, JUDGED), config.judge, engine, seed)
    if config.modelled:
        run_reward_scoring(run, attempt, _part_jobs(jobs, MODELLED), config.model)
    program = _program(config, jobs)
    missing = []
    for job in jobs:
        job.output.mkdir(parents=True, exist_ok=True)
        for shard in parquet_files(job.samples):
            if is_scored(program, job, shard):
                continue
            known = _ahead(run, stage, config) / f"{file_sha256(shard)}.parquet"
            if known.exists() and tally_file(known).exists() and not read_tally(known).errors:
                take(known, scores_file(program, job, shard))
            else:
                missing.append((job, shard))
    if config.workers > 1 and len(missing) > 1:
        run_child(scoring_program(config, jobs, attempt / SCORER), attempt / "log.txt", run.child_lock, run_logger())
    else:
        for job, shard in missing:
            score_shard(program, job, shard)
    return {job.output: _counted(program, job, config.max_error_share) for job in jobs}


@contextmanager
def scoring_ahead(run: Run, stage: str, job: ScoreJob, config: RewardConfig | None) -> Iterator[None]:
    """Score the shards of a job, if the configuration asks for it, as they appear while the block runs.

    The stage that scores then finds them. What goes wrong is only logged: that stage comes to it again.

    Args:
        stage: the one that generates the samples.
        job: its output does not matter.
    """
    if config is None or not config.runs_ahead:
        yield
        return
    folder = _ahead(run, stage, config)
    folder.mkdir(parents=True, exist_ok=True)
    until = folder / ".until"
    until.unlink(missing_ok=True)
    job = job.model_copy(update={"output": folder})
    command, logger = scoring_program(config, [job], folder / f".{SCORER}", until), run_logger()

    def work() -> None:
        try:
            run_child(command, folder / ".log.txt", run.scorer_lock, logger)
        except ChildError as error:
            logger.warning("Scoring while answers are generated has stopped. They are scored afterwards. %s", error)

    thread = Thread(target=work)
    thread.start()
    said = scorer.STOP
    try:
        yield
        said = scorer.ALL
    finally:
        until.write_text(said)
        thread.join()


def scoring_program(config: RewardConfig, jobs: list[ScoreJob], file: Path, until: Path | None = None) -> list[str]:
    """Write down in a file what the scoring program is told; return the command that runs it."""
    file.write_text(_program(config, jobs, until).model_dump_json(indent=2))
    return [sys.executable, "-m", "tasks.rollouts.scorer", str(file)]


def forget_ahead(run: Run, stage: str) -> None:
    """Remove what was scored ahead for a stage that is finished."""
    for folder in (run.directory / stage).parent.glob(f"{AHEAD}-*"):
        shutil.rmtree(folder)


def _ahead(run: Run, stage: str, config: RewardConfig) -> Path:
    """Where scores made ahead are, for all stages of an iteration: those of other rewards are in other folders."""
    identity = json.dumps(reward_identity(config), sort_keys=True)
    return (run.directory / stage).with_name(f"{AHEAD}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}")


def _part_jobs(jobs: list[ScoreJob], part: str) -> list[ScoreJob]:
    asked = [job.model_copy(update={"output": part_folder(job, part)}) for job in jobs]
    for job in asked:
        job.output.mkdir(parents=True, exist_ok=True)
    return asked


def _program(config: RewardConfig, jobs: list[ScoreJob], until: Path | None = None) -> ScorerProgram:
    return ScorerProgram(
        graders=graders(config),
        models=[name for name in config.names if name in MODELS],
        combination=config.combination,
        isolation=config.isolation,
        jobs=jobs,
        workers=config.workers,
        until=until,
    )


def _counted(program: ScorerProgram, job: ScoreJob, max_error_share: float) -> Tally:
    whole = Tally()
    files = [scores_file(program, job, shard) for shard in parquet_files(job.samples)]
    tallies = {file: read_tally(file) for file in files}
    for tally in tallies.values():
        whole.add(tally)
    try:
        check_errors(whole, max_error_share)
    except TooManyErrorsError:
        # Whoever mends the reward runs the same command again, and what it failed on is then no longer there.
        for file, tally in tallies.items():
            if tally.errors:
                tally_file(file).unlink()
        raise
    for file in files:
        tally_file(file).unlink()
    return whole
