"""Runs that follow one another: names that hold the date, a champion to begin with, and the gate to its place."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from data.metrics import Interval
from models.loading import ModelError
from tasks.contract import Artifact
from tasks.files import write_json
from tasks.registry import Registry, Version
from tasks.run import CONFIG, SUMMARY
from tasks.tracking import open_registry, reaching, tracking_uri

PIN = "champion.json"
# A champion is whole, and a folder here.
ALONE: dict[str, Any] = {"adapter": None, "template": None, "template_options": {}, "model_revision": None}


def settle(config: Any) -> Any:
    """Decide what a configuration leaves open: the date in the run's name, the registered model, the champion.

    A settled configuration stays as it is.

    Raises:
        ModelError: the champion's checkpoint is gone.
        HistoryError: the registry cannot be reached.
    """
    registry = config.registry or f"autodidact-{_without_date(config.run)}"
    config = config.model_copy(update={"run": run_name(config.runs_dir, config.run), "registry": registry})
    if not _begins_with_champion(config):
        return config
    champion = _pinned(config.directory) or _find_champion(config)
    if champion["path"] is None:
        return config
    return config.model_copy(update=ALONE | {"model": champion["path"]})


def run_name(runs: Path, pattern: str, now: datetime | None = None) -> str:
    """The name that a pattern such as nightly-%Y-%m-%d stands for.

    The latest run of that pattern is continued if it is not finished; else a new one begins, named by the time for
    which the flow run was scheduled, or without one, by the time it is.
    """
    if "%" not in pattern:
        return pattern
    earlier = []
    for folder in runs.iterdir() if runs.is_dir() else ():
        with suppress(ValueError):
            earlier.append((datetime.strptime(folder.name, pattern), folder))
    if earlier:
        _, latest = max(earlier)
        if (latest / CONFIG).exists() and not (latest / SUMMARY).exists():
            return latest.name
    return (now or _scheduled() or datetime.now().astimezone()).strftime(pattern)


def pin_champion(config: Any) -> None:
    """Keep in the run's folder which champion it began with: a resumed run begins with the same."""
    if _begins_with_champion(config) and _pinned(config.directory) is None:
        write_json(config.directory / PIN, _find_champion(config))


@dataclass(frozen=True)
class Gate:
    """How much better the result is than what holds its place, on the test set; None: that could not be measured."""

    rival: Version | None  # None: there is no champion yet, and the base stands in
    difference: Interval | None
    problems: int

    @property
    def passed(self) -> bool:
        return self.difference is not None and self.difference.low > 0


def apply_gate(registry: Registry, version: Version, gate: Gate | None) -> str:
    """Let the alias `champion` move to a version if it is clearly better; else it becomes `challenger`.

    Returns:
        A sentence that says what happened.
    """
    champion = registry.champion(version.model)
    if champion is not None and champion.number == version.number:
        return f"{version} is the champion."
    if gate is None:
        return f"{version.model} has no champion: no iteration was better than the base."
    rival = f"version {gate.rival.number}" if gate.rival else "base"
    figures = "its checkpoint is gone" if gate.difference is None else f"{gate.difference} on {gate.problems} problems"
    registry.tag(version, {"gate_against": rival, "gate_difference": figures, "gate_set": "test"})
    registry.tag(version, {"gate_passed": "yes" if gate.passed else "no"})
    if gate.passed:
        registry.crown(version, "gate")
        return f"{version} is the new champion: against {rival}, {figures}."
    registry.challenge(version)
    return f"{version} is a challenger, not clearly better: against {rival}, {figures}."


def policy_of(version: Version) -> Artifact | None:
    """A version's checkpoint, if it is still there."""
    return Artifact(version.path, version.digest) if (version.path / "config.json").exists() else None


def _scheduled() -> datetime | None:
    """When the flow run that is under way was to start, in local time."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.expected_start_time is None:
        return None
    return context.flow_run.expected_start_time.astimezone()


def _without_date(pattern: str) -> str:
    return re.sub(r"[-._]*%[YmdHMS]", "", pattern).strip("-._") or "dated"


def _begins_with_champion(config: Any) -> bool:
    """A run that is no loop has no such setting."""
    return getattr(config, "init", "base") == "champion"


def _find_champion(config: Any) -> dict[str, Any]:
    with reaching(tracking_uri(config.runs_dir)):
        found = open_registry(config.runs_dir).champion(config.registry)
    if found is None:
        return {"version": None, "path": None, "digest": None}
    if policy_of(found) is None:
        raise ModelError(
            f"The champion, {found}, should lie in {found.path}, and is gone.",
            what_next=f"Make another the champion (autodidact promote {found.model} VERSION), or start with "
            "init: base.",
        )
    return {"version": found.number, "path": str(found.path), "digest": found.digest}


def _pinned(directory: Path) -> dict[str, Any] | None:
    file = directory / PIN
    return dict(json.loads(file.read_text())) if file.exists() else None
