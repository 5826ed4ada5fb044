"""The runs of a folder and their contents, from configurations and manifests. Their progress is in `state.py`.

Writes nothing, and needs no server: the disk is the source of truth.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from data.measures import ACCURACY, MEASURES, SAMPLED_ACCURACY, Estimated, Measure
from data.metrics import Interval, SetMetrics
from tasks.datasets.demonstrations import MIX, SFT
from tasks.datasets.ranked import BASELINE, EFT, RANKED
from tasks.rollouts.evaluate import METRICS
from tasks.rollouts.measured import ESTIMATES
from tasks.rollouts.trained_reward import REWARD
from tasks.settings.loop import StopConfig
from tasks.stage.contract import CorruptStageError, Finished, Manifest, load_finished
from tasks.stage.run import CONFIG, LOCK, PLAN

MARKS = (LOCK, "problems", "base")
DECIDED_BY = "decided_by"  # in the configuration: the deciding measure, or null


class QueryError(AutodidactError):
    """A query about runs cannot be answered; the message says why and what to do next."""


@dataclass(frozen=True)
class Origin:
    """An artifact and the stage that made it. `name` is its path within the stage."""

    stage: str
    name: str

    @property
    def iteration(self) -> int:
        return iteration_of(self.stage)

    def __str__(self) -> str:
        return f"{self.stage}/{self.name}" if self.name else self.stage


@dataclass(frozen=True)
class History:
    """A run directory as it is on disk.

    Attributes:
        plan: all stages in order, as planned at the run's last start; empty for older runs.
        values: the deciding measure on validation, by iteration; empty if no measure decides.
        broken: what cannot be read, with the problem and what to do.
    """

    directory: Path
    config: dict[str, Any]
    plan: list[str]
    stages: dict[str, Finished]
    values: dict[int, Interval]
    broken: dict[str, str]

    @property
    def measure(self) -> Measure | None:
        """The measure that decides which iteration is best."""
        return _deciding(self.config)

    @property
    def name(self) -> str:
        return self.directory.name

    @property
    def algorithm(self) -> str | None:
        """The algorithm that made the run; None if its configuration does not name one."""
        found = self.config.get("algorithm")
        return found if isinstance(found, str) else None

    @cached_property
    def _artifacts(self) -> dict[str, list[Origin]]:
        """Every artifact of the stages, by digest. `best` is skipped: it only links to artifacts made elsewhere."""
        found: dict[str, list[Origin]] = {}
        for stage, finished in self.stages.items():
            outputs = finished.manifest.outputs
            if stage == "best" or not outputs:
                continue
            folders = {str(folder) for name in outputs for folder in list(Path(name).parents)[:-1]}
            for name in ("", *outputs, *sorted(folders)):
                found.setdefault(finished.artifact(name).require(), []).append(Origin(stage, name))
        return found

    def origin(self, digest: str, latest: int) -> Origin | None:
        """Return the artifact with that digest, made in iteration `latest` or before; if several, the latest."""
        known = [origin for origin in self._artifacts.get(digest, ()) if origin.iteration <= latest]
        return max(known, key=lambda origin: origin.iteration, default=None)

    def path(self, origin: Origin) -> Path:
        return self.stages[origin.stage].path / origin.name

    def manifest(self, origin: Origin) -> Manifest:
        """Return the manifest of the stage that made it."""
        return self.stages[origin.stage].manifest

    def digest(self, origin: Origin) -> str:
        return self.stages[origin.stage].artifact(origin.name).require()


def iteration_of(stage: str) -> int:
    """Return the iteration of a stage; stages outside the iterations, before or after them, count as 0."""
    found = re.match(r"iter-(\d+)/", stage)
    return int(found[1]) if found else 0


def run_directories(runs: Path) -> list[Path]:
    """Return the folders of `runs` that are runs: they have a lock or, if copied without it, their first stages.

    Raises:
        QueryError: there is no such folder.
    """
    if not runs.is_dir():
        raise QueryError(
            f"there is no folder {runs}, so there are no runs in it.",
            f"The path is relative to {Path.cwd()}.",
            "Start a run first, change to the folder that contains it, or name it with --runs-dir.",
        )
    return sorted(d for d in runs.iterdir() if d.is_dir() and any((d / name).exists() for name in MARKS))


def find_run(runs: Path, name: str) -> Path:
    """Return the directory of a run.

    Raises:
        QueryError: there is no run of that name; the message lists those that exist.
    """
    known = run_directories(runs)
    if runs / name in known:
        return runs / name
    there = f"There are {', '.join(d.name for d in known)}." if known else "It has no runs yet."
    raise QueryError(f"{runs} has no run {name!r}.", what_next=f"{there} Name another folder with --runs-dir.")


def open_history(runs: Path, name: str) -> History:
    """Return the history of the named run.

    Raises:
        QueryError: there is no such run, or part of it cannot be read.
    """
    history = load_history(find_run(runs, name))
    if history.broken:
        raise QueryError(f"{history.name} is corrupt.", what_next=next(iter(history.broken.values())))
    return history


def load_history(directory: Path) -> History:
    """Read a run's configuration and manifests. What cannot be read is kept in `broken`, not raised."""
    stages: dict[str, Finished] = {}
    values: dict[int, Interval] = {}
    broken: dict[str, str] = {}
    config: dict[str, Any] = {}
    plan: list[str] = []
    try:
        config, plan = _read_config(directory / CONFIG), _read_plan(directory / PLAN)
    except (OSError, ValueError, TypeError) as error:
        broken[CONFIG] = (
            f"{directory / CONFIG} cannot be read ({_first_line(error)}). Run the same command again: it is rewritten "
            f"at every start."
        )
    for path in _stage_directories(directory):
        name = str(path.relative_to(directory))
        try:
            if (finished := load_finished(path)) is not None:
                stages[name] = finished
                if name.startswith("iter-") and (value := _value(path, _deciding(config))) is not None:
                    values[iteration_of(name)] = value
        except CorruptStageError as error:
            broken[name] = str(error)
        except (OSError, ValueError) as error:
            broken[name] = (
                f"{path} cannot be read ({_first_line(error)}). Check its permissions, or delete it and run the same "
                f"command again to rebuild it."
            )
    return History(directory, config, plan, stages, values, broken)


def _read_config(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    config = dict(json.loads(path.read_text()))
    StopConfig.model_validate(config.get("stop", {}))
    return config


def _read_plan(path: Path) -> list[str]:
    return [str(name) for name in json.loads(path.read_text())] if path.exists() else []


def _deciding(config: Mapping[str, Any]) -> Measure | None:
    return MEASURES.get(config.get(DECIDED_BY, ACCURACY.name))


def _value(stage: Path, measure: Measure | None) -> Interval | None:
    """Return a stage's value of that measure on validation, if it has one."""
    metrics, estimates = stage / "validation" / METRICS, stage / "validation" / ESTIMATES
    if measure in (ACCURACY, SAMPLED_ACCURACY) and metrics.exists():
        found = SetMetrics.model_validate_json(metrics.read_text())
        return found.greedy if measure == ACCURACY else found.pass_at.get(1)
    if measure is None or not estimates.exists():
        return None
    told = json.loads(estimates.read_text())
    return Estimated.model_validate(told[measure.name]).value if measure.name in told else None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _stage_directories(directory: Path) -> list[Path]:
    """Return the folders of stages. Deeper folders may have a `manifest.json` too, but it belongs to a model."""
    others = (SFT, MIX, RANKED, EFT, BASELINE, REWARD, "final")
    groups = [*directory.glob("iter-*"), *(directory / name for name in others)]
    found = [directory / name for name in ("problems", "base", "best")]
    found += [path for group in groups for path in group.glob("[!.]*")]
    return sorted(path for path in found if path.is_dir())
