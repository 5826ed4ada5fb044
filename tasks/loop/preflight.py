"""All checks before a model loads: files, rows, reward, model, template, lengths, drift, disk."""

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.chat_template import naming, require_template
from data.errors import AutodidactError
from data.keeping import earlier_kept
from data.prepare.preferences import read_pairs
from data.prepare.reading import Tally
from data.render import begins_with_reasoning, completion_token_ids, first_of_each_shape
from data.rows import SPLITS, Problem
from data.storage import read_rows
from models import tiny
from models.adapters.settings import EMBEDDED, AdapterConfig
from models.config import EngineConfig
from models.estimate import parameters_of, tensor_shapes
from models.loading import unmerged
from tasks.datasets.pairs import PairFormat
from tasks.datasets.problems import look_ahead
from tasks.datasets.prompt_length import policy_tokenizer, prompt_lengths
from tasks.policies.adapter import AdapterError, check_adapter, check_continued, check_targets, virtual_tokens
from tasks.policies.model_folder import resolve_model
from tasks.rollouts.rewards import check_reward
from tasks.rollouts.win_rate_settings import check_win_rate
from tasks.settings.loop import LoopConfig
from tasks.settings.run import RunConfig
from tasks.stage.contract import MANIFEST, OnDrift, Status, drift_error
from tasks.stage.disks import existing_parent
from tasks.stage.freed import needed_error
from tasks.stage.logs import run_logger
from tasks.stage.run import SUMMARY, Planned, Run, check_writable

GOLD = "The answer is 42."  # stands for any answer

Loop = Callable[[Run, Any], dict[str, Any]]

_checked: set[str] = set()


class DiskSpaceError(AutodidactError):
    """The planned run does not fit on the disk."""


def check(loop: Loop, config: RunConfig, on_drift: OnDrift) -> Run:
    """Refuse a run that cannot work, or return its plan. Checks that passed are not repeated in this process.

    A finished run needs no checks.

    Raises:
        RunDirectoryError, DataFileError, RewardError, ModelError, AdapterError, TemplateError, VocabularyError,
        PromptTooLongError, DriftError, FreedError, DiskSpaceError, CorruptStageError: each says what, why and what
        to do next.
    """
    check_writable(config.directory)
    if (config.directory / SUMMARY).exists():
        run = plan_loop(loop, config, on_drift)
        if all(planned.status is Status.REUSE for planned in run.plan):
            return run
    key = f"{config.model_dump_json()} {on_drift}"
    if key not in _checked:
        if isinstance(config, LoopConfig):
            for reward in config.ready_rewards:
                check_reward(reward)
            if config.win_rate:
                check_win_rate(config.win_rate, config)
        config.check_inputs()
        if isinstance(config, LoopConfig) and config.has_problems:
            check_problems(config, on_drift)
        if isinstance(config, PairFormat):
            check_pair_prompts(config)
        check_adapters(config)
        _checked.add(key)
    run = plan_loop(loop, config, on_drift)
    for planned in run.plan:
        if planned.status is Status.DRIFT and planned.finished and on_drift is OnDrift.REFUSE:
            raise drift_error(planned.finished.manifest, planned.stage)
    for made_by, needed_by in run.lacking.items():
        raise needed_error(needed_by, run.directory / made_by)
    check_disk(run, config)
    return run


def plan_loop(loop: Loop, config: RunConfig, on_drift: OnDrift) -> Run:
    """Walk the loop without executing anything; the returned run's `plan` says what would happen to each stage.

    With `--on-drift rebuild`, freed checkpoints are planned to be made again if they are needed, and only then.
    """
    run = _plan(loop, config, on_drift, frozenset())
    while run.lacking and on_drift is OnDrift.REBUILD:
        run = _plan(loop, config, on_drift, run.remake | run.lacking.keys())
    return run


def _plan(loop: Loop, config: RunConfig, on_drift: OnDrift, remake: frozenset[str]) -> Run:
    run = Run(config.directory, planning=True, on_drift=on_drift, remake=remake)
    run.parameters = parameters_of(config.model) if config.model else tiny.PARAMETERS
    run.row_tokens = config.row_tokens
    run.virtual_tokens = max((one.adapter.tokens for one in config.trained.values() if one.adapter), default=0)
    run.model_code, run.seed = config.model_code, config.seed
    loop(run, config)
    return run


def check_problems(config: LoopConfig, on_drift: OnDrift) -> None:
    """Prepare all problems, render every prompt with the policy's tokenizer, and check that an answer fits.

    If gold answers are trained on, check that the chat template can render them, and those that reason.
    """
    lengths = prompt_lengths(config)
    require_template(lengths.reads.tokenizer, config.model or "the embedded model")
    run = Run(config.directory, planning=True, on_drift=on_drift, seed=config.seed)
    with look_ahead(run, config, lengths) as folder:
        files = [file for split in SPLITS if (file := folder / f"{split}.parquet").exists()]
        if (folder / MANIFEST).exists():  # otherwise they were checked while they were prepared
            for problem in (problem for file in files for problem in read_rows(Problem, file)):
                lengths.check(problem)
        if config.trains_on_gold:
            completion_token_ids(lengths.reads.tokenizer, GOLD)
            for problem in (problem for file in files for problem in read_rows(Problem, file)):
                _check_reasoning(lengths.reads.tokenizer, problem.response, f"Problem {problem.id} of {problem.source}")
        check_judged(config, files)


def _check_reasoning(tokenizer: Any, answer: str | None, place: str) -> None:
    """Check that an answer which begins with reasoning can follow a prompt.

    Raises:
        TemplateError: naming its place.
    """
    if answer and begins_with_reasoning(answer):
        with naming(place):
            completion_token_ids(tokenizer, answer)


def check_judged(config: LoopConfig, files: Sequence[Path]) -> None:
    """Check that the rewards that are models can score the problems.

    Args:
        files: the problems of each split.

    Raises:
        TemplateError: naming the problem that a chat template fails on.
    """
    for reward in config.ready_rewards:
        for model in reward.models.values():
            model.check_problems(problem for file in files for problem in read_rows(Problem, file))


def check_pair_prompts(config: Any) -> None:
    """Render one pair of each kind, an answer, and all answers that reason, with the policy's tokenizer.

    Raises:
        ModelError, TemplateError, VocabularyError: naming the pair.
    """
    reads = policy_tokenizer(config)
    sources = (config.pairs, config.validation_pairs, getattr(config, "test_pairs", None))
    for source in sources:
        if source is not None:
            reading = replace(config.pair_reading(source), drop=True)
            for pair in first_of_each_shape(read_pairs(reading, Tally())):
                reads.token_ids(pair.messages, f"Pair {pair.problem_id} of {source}")
            for pair in read_pairs(reading, Tally()) if isinstance(config, LoopConfig) else ():
                for answer in (pair.chosen, pair.rejected):
                    _check_reasoning(reads.tokenizer, answer, f"Pair {pair.problem_id} of {source}")
    if isinstance(config, LoopConfig):  # a reward model generates no answers, so its pairs cannot differ from them
        completion_token_ids(reads.tokenizer, GOLD)


def check_adapters(config: RunConfig) -> None:
    """Check that the starting adapter belongs to the model, and that a new one can be attached to it.

    Raises:
        AdapterError: it does not or cannot, or 4-bit weights are set but bitsandbytes is not installed.
    """
    folder = resolve_model(config.model, config) if config.model else None
    if config.adapter:
        if folder is None:
            raise AdapterError(
                f"--adapter {config.adapter} belongs to a model, but no model is given.",
                what_next="Give the --model that it was trained on.",
            )
        if unmerged(folder) is not None:
            raise AdapterError(
                f"{config.model} has an adapter beside its weights already, so --adapter {config.adapter} cannot be "
                "merged into it.",
                what_next="Give one of the two.",
            )
        check_adapter(config.adapter, folder)
    shapes = tensor_shapes(folder) if folder else {f"{name}.weight": size for name, size in tiny.LINEAR_SHAPES.items()}
    if folder:
        check_continued(folder, config.trained)
    virtual_tokens(config.trained, policy_tokenizer(config).context)
    for setting, one in config.trained.items():
        devices = getattr(config, "engine", EngineConfig()).tensor_parallel_size
        if one.beside and one.adapter is not None and one.adapter.kind not in EMBEDDED and devices > 1:
            raise AdapterError(
                f"A policy with {setting}.adapter.kind {one.adapter.kind} answers in Transformers, on one device, but "
                f"engine.tensor_parallel_size is {devices}.",
                what_next="Set it to 1, or choose another kind.",
            )
        if one.adapter is not None:
            _check_new_adapter(setting, one.adapter, shapes, config.model or "the embedded model")


def _check_new_adapter(setting: str, adapter: AdapterConfig, shapes: Mapping[str, list[int]], model: str) -> None:
    if adapter.quantize and importlib.util.find_spec("bitsandbytes") is None:
        raise AdapterError(
            f"{setting}.adapter.quantize needs the package bitsandbytes, which is not installed.",
            what_next=f"Install it (make setup), or set {setting}.adapter.quantize to false: unquantized weights.",
        )
    if adapter.idle:
        idle = ", ".join(f"{setting}.adapter.{name}" for name in adapter.idle)
        run_logger().warning("With %s.adapter.kind %s, these settings have no effect: %s.", setting, adapter.kind, idle)
    check_targets(adapter, shapes, model, setting)


def check_disk(run: Run, config: RunConfig) -> None:
    needed = peak_disk(run.plan, keeps(config))
    existing = existing_parent(run.directory)
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DiskSpaceError(
            f"The run needs up to {needed / 1e9:,.1f} GB of disk, but {existing} has only {free / 1e9:,.1f} GB free.",
            what_next="Free some space (`autodidact runs --disk` shows what uses it), choose another --runs-dir, "
            "--keep best, or lower generate.samples or generate.max_tokens.",
        )


def keeps(config: RunConfig) -> str:
    """Return which checkpoints a loop keeps while it runs: all, as long as a reviewer may choose any iteration."""
    return config.keep if isinstance(config, LoopConfig) and not config.approve else "all"


def peak_disk(plan: Sequence[Planned], keep: str) -> int:
    """Return the peak disk usage of the stages still to run, in bytes.

    During training, a stage has checkpoints with the optimizer state; its policy stays until it is freed.
    """
    peak, rest, policies = 0, 0, list[int]()
    for estimate in (planned.stage.estimate for planned in plan if planned.status is not Status.REUSE):
        earlier = earlier_kept(keep)
        held = policies if earlier is None else policies[-earlier:]
        peak = max(peak, rest + sum(held) + estimate.disk_bytes)
        if estimate.checkpoint_bytes:
            policies.append(estimate.checkpoint_bytes)
            rest += estimate.kept_bytes
        else:
            rest += estimate.disk_bytes
    return peak
