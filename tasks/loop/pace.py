"""How long the stages of a run are likely to take, from what finished ones of the same kind took on this machine."""

import json
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from tasks.settings.run import RunConfig
from tasks.stage.contract import MANIFEST, Manifest, Status, load_finished
from tasks.stage.run import CONFIG, Run

LATEST = 10  # runs that are looked at


@dataclass(frozen=True)
class Took:
    """What finished stages of a kind took together. `samples` is their estimate; 0 if the kind has none."""

    stages: int = 0
    samples: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Took") -> "Took":
        return Took(self.stages + other.stages, self.samples + other.samples, self.seconds + other.seconds)

    def for_another(self, samples: int) -> float | None:
        """Seconds that another stage of the kind takes; None if that cannot be told."""
        if samples:
            return self.seconds * samples / self.samples if self.samples else None
        return self.seconds / self.stages if self.stages else None


def expected_seconds(plan: Run, config: RunConfig) -> dict[str, float | None]:
    """The expected seconds of every stage that is left to do, by its name; None if nothing is known.

    Known are finished stages of the same kind: of this run, else of the latest other run here that has some, with the
    same model, engine and spread over devices.
    """
    own = _by_kind(p.finished.manifest for p in plan.plan if p.finished is not None)
    others = list(_like(config))
    found: dict[str, float | None] = {}
    for planned in plan.plan:
        if planned.status is Status.REUSE:
            continue
        stage = planned.stage
        known = (took[kind] for took in (own, *others) if (kind := kind_of(stage.name)) in took)
        told = (took.for_another(stage.estimate.samples) for took in known)
        found[stage.name] = next((seconds for seconds in told if seconds is not None), None)
    return found


def kind_of(stage: str) -> str:
    """What a stage does: train for iter-1/train; final/base and final/best evaluate, unless they say otherwise."""
    place, _, name = stage.rpartition("/")
    if place == "final":
        return name.partition("-")[2] or "evaluate"
    return name


def _by_kind(manifests: Iterable[Manifest]) -> Mapping[str, Took]:
    found: dict[str, Took] = defaultdict(Took)
    for manifest in manifests:
        if manifest.host == socket.gethostname():
            found[kind_of(manifest.stage)] += Took(1, manifest.samples, manifest.seconds)
    return found


def _like(config: RunConfig) -> Iterator[Mapping[str, Took]]:
    """What stages took in other runs with the same model, engine and spread over devices, the latest run first."""
    told = config.model_dump(mode="json")
    files = [file for file in config.runs_dir.glob(f"*/{CONFIG}") if file.parent != config.directory]
    for file in sorted(files, key=lambda file: -file.stat().st_mtime)[:LATEST]:
        if all(_read(file).get(name) == told.get(name) for name in ("model", "engine", "launch")):
            yield _by_kind(_finished(file.parent))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _finished(directory: Path) -> Iterator[Manifest]:
    for file in sorted(directory.glob(f"*/{MANIFEST}")) + sorted(directory.glob(f"*/*/{MANIFEST}")):
        try:
            stage = load_finished(file.parent)
        except AutodidactError:  # damaged: `autodidact verify` says so
            continue
        if stage is not None:
            yield stage.manifest
