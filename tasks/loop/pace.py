"""How long the stages of a run are likely to take, from what finished ones of the same kind took on this machine."""

import json
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from data.errors import AutodidactError
from tasks.settings.run import RunConfig
from tasks.stage.contract import MANIFEST, Manifest, Status, load_finished
from tasks.stage.run import CONFIG, Run

LATEST = 10  # runs that are looked at
TIME_DEPENDS_ON = (
    *("model", "adapter", "engine", "launch", "reward", "train.adapter", "train.dtype", "train.pack_to"),
    *("generate.max_tokens", "generate.temperature", "generate.dtype", "generate.until_kept"),
)


@dataclass(frozen=True)
class Took:
    """What finished stages of a kind took together; and those whose samples were estimated, and how many those were."""

    stages: int = 0
    seconds: float = 0.0
    samples: int = 0
    seconds_of_samples: float = 0.0

    def __add__(self, other: "Took") -> "Took":
        return Took(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def for_another(self, samples: int) -> float | None:
        """Seconds that another stage of the kind takes; None if that cannot be told."""
        if samples:
            return self.seconds_of_samples * samples / self.samples if self.samples else None
        return self.seconds / self.stages if self.stages else None


def expected_seconds(plan: Run, config: RunConfig) -> dict[str, float | None]:
    """The expected seconds of every stage that is left to do, by its name; None if nothing is known.

    Known are finished stages of the same kind: of this run, else of the latest other run here that has some, with the
    same settings of all that a sample's time depends on.
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
            seconds, samples = manifest.seconds, manifest.samples
            found[kind_of(manifest.stage)] += Took(1, seconds, samples, seconds if samples else 0.0)
    return found


def _like(config: RunConfig) -> Iterator[Mapping[str, Took]]:
    """What stages took in other runs with the same settings of all that it depends on, the latest run first."""
    told = config.model_dump(mode="json")
    files = [file for file in config.runs_dir.glob(f"*/{CONFIG}") if file.parent != config.directory]
    for file in sorted(files, key=lambda file: -file.stat().st_mtime)[:LATEST]:
        known = _read(file)
        if all(_setting(known, name) == _setting(told, name) for name in TIME_DEPENDS_ON):
            yield _by_kind(_finished(file.parent))


def _setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting by its dotted name; None if there is none."""
    found: Any = config
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


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
