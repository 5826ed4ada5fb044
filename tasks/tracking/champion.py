"""Runs that build on each other: names with a date, a champion to start from, and the gate that moves the champion."""

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from data.files import write_json
from data.measures import ACCURACY, LOSS, Measure
from data.metrics import Interval
from models.loading import ModelError
from tasks.policies.model_folder import same_tokenizer
from tasks.report.wording import too_small
from tasks.settings.run import RunConfig
from tasks.stage.contract import Artifact
from tasks.stage.freed import no_model_error, stage_that_freed
from tasks.stage.run import CONFIG, SUMMARY
from tasks.tracking.mlflow import open_registry, reaching, tracking_uri
from tasks.tracking.registry import Registry, Version

Settings = TypeVar("Settings", bound=RunConfig)

PIN = "champion.json"
GATE_SET = "gate_set_digest"  # tag of a version: the test set that decided on it
# A champion is a complete model in a local folder.
ALONE: dict[str, Any] = {"adapter": None, "template": None, "template_options": {}, "model_revision": None}


def resolve_settings(config: Settings) -> Settings:
    """Resolve what a configuration leaves open: the date in the run's name, the registered model, the champion.

    A resolved configuration stays as it is.

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
    """Return the run name for a pattern such as nightly-%Y-%m-%d.

    The latest run of that pattern continues if it is not finished. Otherwise a new one begins, named by the scheduled
    time of the flow run, or by the current time if there is none.
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


def remember_champion(config: RunConfig) -> None:
    """Record the starting champion in the run's folder, so that a resumed run starts from the same one."""
    if _begins_with_champion(config) and _pinned(config.directory) is None:
        write_json(config.directory / PIN, _find_champion(config))


@dataclass(frozen=True)
class Gate:
    """How much better the result is than the champion, on the test set.

    Attributes:
        rival: None if there is no champion yet and the base is used instead.
        difference: the result's measure minus the rival's; for a win rate against the rival, minus a half. None if the
            rival's checkpoint is gone, or the two cannot be compared.
        problems: rows of the test set.
        refused: why the two cannot be compared.
    """

    rival: Version | None
    difference: Interval | None
    problems: int
    measure: Measure = ACCURACY
    refused: str | None = None

    @property
    def passed(self) -> bool:
        return self.difference is not None and self.measure.clearly_better(self.difference) and not self.caution

    @property
    def caution(self) -> str:
        """A warning if there are too few problems, otherwise empty."""
        return "" if self.difference is None else too_small(self.measure, self.problems, self.difference)

    @property
    def figures(self) -> str:
        """The result in words."""
        if self.difference is None:
            return self.refused or "its checkpoint is gone"
        found = f"{self.measure.shown_interval(self.difference)} on {self.problems} {self.measure.rows}"
        if self.measure == ACCURACY:
            return found
        than = "" if self.measure.even is None else f" minus {self.measure.shown(self.measure.even)}"
        return f"{self.measure.label}{than}: {found}"


def refusal(measure: Measure, ours: Path, champion: Version, base: str | None = None) -> str | None:
    """Return why the gate cannot use a measure against a champion of another run; None if it can.

    Args:
        ours: folder of the policy that may become champion.
        base: digest of this run's base. If it is the champion, both are from the same run.
    """
    if champion.digest == base:
        return None
    if not measure.across_runs:
        return (
            f"{measure.label} is measured against the base of its own run, so it cannot compare two runs. "
            f"Choose accuracy, a win rate, or the loss as the run's measure"
        )
    if measure == LOSS and not same_tokenizer(ours, champion.path):
        return (
            "the loss per token is not comparable between policies with different tokenizers or chat templates. Choose "
            "accuracy or a win rate as the run's measure"
        )
    return None


def gates_decided(registry: Registry, set_digest: str, but: str | None = None) -> int:
    """Count the versions, of any registered model, that a test set has already decided on.

    Args:
        but: digest of a checkpoint to ignore: the one now being decided on, perhaps for the second time.
    """
    return sum(version.digest != but for version in registry.tagged(GATE_SET, set_digest))


def apply_gate(registry: Registry, version: Version, gate: Gate | None, set_digest: str | None = None) -> str:
    """Move the alias `champion` to a version if it is clearly better; otherwise make it `challenger`.

    Args:
        set_digest: digest of the deciding test set, kept with the version for `gates_decided`.

    Returns:
        A sentence that describes the outcome.
    """
    champion = registry.champion(version.model)
    if champion is not None and champion.number == version.number:
        return f"{version} is the champion."
    if gate is None:
        return f"{version.model} has no champion: no iteration was better than the base."
    rival = f"version {gate.rival.number}" if gate.rival else "base"
    tags = {"gate_against": rival, "gate_set": "test"}
    if gate.refused:
        tags["gate_refused"] = gate.refused
    else:
        tags |= {"gate_measure": gate.measure.name, "gate_difference": gate.figures}
    tags |= {GATE_SET: set_digest} if set_digest and gate.difference is not None else {}
    registry.tag(version, tags | {"gate_passed": "yes" if gate.passed else "no"})
    if gate.passed:
        registry.crown(version, "gate")
        return f"{version} is the new champion: against {rival}, {gate.figures}."
    registry.challenge(version)
    if gate.refused:
        return f"{version} is a challenger, not compared with {rival}: {gate.refused}."
    found = f"{version} is a challenger, not clearly better: against {rival}, {gate.figures}. {gate.caution}"
    return found.rstrip()


def policy_of(version: Version) -> Artifact | None:
    """Return a version's checkpoint; None if it is gone."""
    there = (version.path / "config.json").exists() and stage_that_freed(version.path) is None
    return Artifact(version.path, version.digest) if there else None


def require_checkpoint(version: Version) -> None:
    """Check that a version's weights were not freed.

    Raises:
        FreedError: they were.
    """
    if (stage := stage_that_freed(version.path)) is not None:
        raise no_model_error(version.path, stage)


def _scheduled() -> datetime | None:
    """The scheduled start of the current flow run, in local time."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.expected_start_time is None:
        return None
    return context.flow_run.expected_start_time.astimezone()


def _without_date(pattern: str) -> str:
    return re.sub(r"[-._]*%[YmdHMS]", "", pattern).strip("-._") or "dated"


def _begins_with_champion(config: RunConfig) -> bool:
    """Whether the run starts from the champion. Only loops have this setting."""
    return getattr(config, "init", "base") == "champion"


def _find_champion(config: RunConfig) -> dict[str, Any]:
    with reaching(tracking_uri(config.runs_dir)):
        found = open_registry(config.runs_dir).champion(config.registered)
    if found is None:
        return {"version": None, "path": None, "digest": None}
    if policy_of(found) is None:
        raise ModelError(
            f"The checkpoint of the champion, {found}, is missing from {found.path}.",
            what_next=f"Make another version champion (autodidact promote {found.model} VERSION), or start with "
            "init: base.",
        )
    return {"version": found.number, "path": str(found.path), "digest": found.digest}


def _pinned(directory: Path) -> dict[str, Any] | None:
    file = directory / PIN
    return dict(json.loads(file.read_text())) if file.exists() else None
