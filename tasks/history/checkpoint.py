"""Which checkpoint a command means: a run's best policy, another of its policies, or a model's folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from models.config import AskedModelConfig, EngineConfig, ModelCode, SamplingConfig
from models.config_base import Config
from tasks.datasets.demonstrations import SFT
from tasks.datasets.ranked import BASELINE
from tasks.history.runs import History, QueryError, open_history, run_directories
from tasks.policies.model_folder import resolve_model
from tasks.stage.freed import no_model_error, stage_that_freed

CONFIG = "config.json"
Settings = TypeVar("Settings", bound=Config)
BEST, BASE = "best", "base"


@dataclass(frozen=True)
class Checkpoint:
    """A policy that can be asked, with what its run's settings say about asking it.

    Attributes:
        folder: as Hugging Face writes it, with tokenizer and chat template.
        name: short, for a prompt or as a model's name.
        about: which policy of which run it is.
        system: the run's system message.
        sampling: how the run drew answers.
        engine: how the run's engine ran.
    """

    folder: Path
    name: str
    about: str
    system: str | None
    sampling: SamplingConfig
    model_code: ModelCode
    engine: EngineConfig


def find_checkpoint(runs: Path, told: str, beside: Checkpoint | None = None) -> Checkpoint:
    """Find a checkpoint.

    Args:
        told: RUN for its best policy so far, RUN/base or RUN/iter-2 for others, a model's folder, or a name on the hub.
        beside: a checkpoint of the run that `base` and `iter-2`, without a run, belong to.

    Raises:
        QueryError: there is none; the message lists those that exist.
        ModelError: the folder is not that of a model, or the hub does not have it.
        FreedError: its weights were removed to free disk space.
    """
    known = [directory.name for directory in run_directories(runs)] if runs.is_dir() else []
    same = beside.name.partition("/")[0] if beside else ""
    if same in known and (told in (BASE, SFT) or told.startswith("iter-")):
        told = f"{same}/{told}"
    run, _, which = told.partition("/")
    if run in known and not (which and (Path(told) / CONFIG).is_file()):
        return _of_run(open_history(runs, run), which)
    if not (Path(told).exists() or "/" in told):
        there = f"Runs: {', '.join(known)}." if known else f"{runs} has no runs yet."
        raise QueryError(
            f"{told} is neither a run in {runs} nor a model's folder.",
            what_next=f"{there} Name one, a policy of one as in RUN/iter-1, a model's folder, or a name on the hub.",
        )
    folder = resolve_model(told, AskedModelConfig())
    assert folder is not None
    if _is_reward_model(folder):
        raise _gives_scores(told)
    about = "not the result of a run here"
    return Checkpoint(folder, told, about, None, _sampling({}), "refuse", EngineConfig())


def _of_run(history: History, which: str) -> Checkpoint:
    known = {
        name.removesuffix("/train"): history.directory / name / "policy"
        for name in history.stages
        if (history.directory / name / "policy" / CONFIG).exists()
    }
    if not known:
        raise QueryError(
            f"The run {history.name} has no policy yet.", what_next="Wait until it has a base, or name another run."
        )
    chosen = which or (BEST if BEST in known else _latest(known))
    if chosen not in known:
        raise QueryError(
            f"The run {history.name} has no policy {which}.",
            what_next=f"Choose from {', '.join(f'{history.name}/{name}' for name in known)}.",
        )
    folder = known[chosen]
    if stage := stage_that_freed(folder):
        raise no_model_error(folder, stage)
    if _is_reward_model(folder):
        raise _gives_scores(f"The result of the run {history.name}")
    name = history.name if chosen == BEST else f"{history.name}/{chosen}"
    config = history.config
    code: ModelCode = "allow" if config.get("model_code") == "allow" else "refuse"
    engine = _read(EngineConfig, config.get("engine", {}))
    return Checkpoint(folder, name, _about(history, chosen), config.get("system"), _sampling(config), code, engine)


def _latest(known: dict[str, Path]) -> str:
    return max(known, key=lambda name: int(name.removeprefix("iter-")) if name.startswith("iter-") else -(name != SFT))


def _about(history: History, chosen: str) -> str:
    run = f"the run {history.name}" + (f" ({history.algorithm})" if history.algorithm else "")
    if chosen == BEST:
        number = json.loads((history.directory / BEST / "best.json").read_text())["iteration"]
        return f"iteration {number}, the best of {run}" if number else f"the base, which no iteration of {run} beat"
    if chosen == BASE:
        return f"the base of {run}"
    if chosen == SFT:
        return f"the base after SFT, of {run}"
    if chosen == BASELINE:
        return f"the policy whose judgments were learned, of {run}"
    return f"iteration {chosen.removeprefix('iter-')} of {run}"


def _sampling(config: dict[str, Any]) -> SamplingConfig:
    """The run's sampling, or for a method that generates nothing, its dtype and greedy answers."""
    if "generate" in config:
        return _read(SamplingConfig, config["generate"])
    dtype = config.get("train", {}).get("dtype", "float32")
    return SamplingConfig(samples=1, temperature=0.0, top_k=0, dtype=dtype)


def _read(kind: type[Settings], told: dict[str, Any]) -> Settings:
    """Settings without those that only some flows have."""
    return kind.model_validate({name: value for name, value in told.items() if name in kind.model_fields})


def _is_reward_model(folder: Path) -> bool:
    try:
        named = json.loads((folder / CONFIG).read_text()).get("architectures") or [""]
    except (OSError, ValueError, AttributeError):  # loading it says what is wrong
        return False
    return "SequenceClassification" in str(named[0])


def _gives_scores(what: str) -> QueryError:
    return QueryError(
        f"{what} is a reward model: it gives scores and writes no answers.",
        what_next="Use it as reward.model.path of another run.",
    )
