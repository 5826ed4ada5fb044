"""The stage contract: how a stage's output is named, published, recognised, reused and refused.

A stage writes one directory. Work happens in an attempt directory beside it; `manifest.json` is written last, and
one atomic rename publishes the whole. A stage is done if and only if its manifest validates. Nothing here knows
what a stage computes, nor of Prefect and MLflow.
"""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.files import file_sha256, write_json
from tasks.provenance import code_version, package_versions

MANIFEST = "manifest.json"
# Hidden files (this one, locks, checkpoints) serve an attempt only and are not part of the output.
ATTEMPT_FILE = ".attempt.json"
# Files that differ between two runs of the same stage (times, throughput, paths): kept, but outside the digest.
PROGRAM, MERGE = "program.json", "merge.json"  # what the stage's programs were told
LOGS = frozenset({"log.txt", "metrics.jsonl", PROGRAM, MERGE})


class DriftError(RuntimeError):
    """A finished stage was made with another configuration or from other inputs than now asked for."""


class CorruptStageError(RuntimeError):
    """A finished stage's files are not what its manifest says."""


class OnDrift(StrEnum):
    REFUSE = "refuse"
    REBUILD = "rebuild"
    ACCEPT = "accept"


class Status(StrEnum):
    RUN = "run"
    RESUME = "resume"
    REUSE = "reuse"
    DRIFT = "drift"
    OPEN = "open"  # finished, but whether it fits is known only when its inputs are


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True)
    size: int
    sha256: str


class Manifest(BaseModel):
    """What a finished stage is, what it was made from, and by what."""

    model_config = ConfigDict(frozen=True)
    stage: str
    version: int
    fingerprint: str
    digest: str
    config: dict[str, Any]
    inputs: dict[str, str]
    seed: int
    outputs: dict[str, FileRecord]
    logs: list[str]
    rows_in: int | None
    rows_out: int | None
    dropped: dict[str, int]
    command: list[str]
    code: dict[str, Any]
    packages: dict[str, str]
    started: str
    ended: str
    host: str
    runs: dict[str, str]

    @property
    def seconds(self) -> float:
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()


@dataclass(frozen=True)
class Artifact:
    """A file or directory that a stage reads. `digest` is None while the stage that makes it is only planned."""

    path: Path
    digest: str | None

    def require(self) -> str:
        """The digest of an artifact that exists."""
        if self.digest is None:
            raise RuntimeError(f"{self.path} is needed before the stage that makes it has run.")
        return self.digest


@dataclass(frozen=True)
class Estimate:
    """What a stage will cost, for the dry run: upper bounds, from the configuration alone."""

    samples: int = 0
    tokens: int = 0
    disk_bytes: int = 0
    gpu_bytes: int | None = None
    devices: int = 0


@dataclass(frozen=True)
class Stage:
    """A stage to be done: its name in the run directory and everything that decides its result.

    `config` and `inputs` (with `version` and `seed`) make the fingerprint. What does not change the result — device
    counts, paths, shard sizes, ports — belongs in neither.
    """

    name: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    seed: int = 0
    resumable: bool = False
    command: str = ""
    estimate: Estimate = field(default_factory=Estimate)

    @property
    def ready(self) -> bool:
        """Whether all inputs exist, so that the fingerprint is known."""
        return all(artifact.digest is not None for artifact in self.inputs.values())

    def identity(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "config": json.loads(json.dumps(self.config, sort_keys=True)),
            "inputs": {name: artifact.require() for name, artifact in self.inputs.items()},
            "seed": self.seed,
        }

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """What the work of a stage reports back for its manifest."""

    rows_in: int | None = None
    rows_out: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """A published stage."""

    path: Path
    manifest: Manifest
    reused: bool = False

    def artifact(self, name: str = "") -> Artifact:
        """One output file, one folder of output files, or (by default) all of them, with the digest of just that."""
        return Artifact(self.path / name, _digest(_under(self.manifest.outputs, name)))

    def verify(self) -> None:
        """Compare every output file with its recorded size and SHA-256.

        Raises:
            CorruptStageError: naming the first file that differs.
        """
        for name, record in self.manifest.outputs.items():
            if file_sha256(self.path / name) != record.sha256:
                raise CorruptStageError(
                    f"{self.path / name} is not the file that {self.manifest.stage} wrote (its SHA-256 differs from "
                    f"{MANIFEST}). Delete {self.path} and run the same command again to rebuild it."
                )


def status(directory: Path, stage: Stage) -> tuple[Status, Finished | None]:
    """What running `stage` in `directory` would do, found in milliseconds from manifests and file sizes.

    Raises:
        CorruptStageError: a manifest is there, but not the files it lists.
    """
    finished = load_finished(directory / stage.name)
    if finished is None:
        attempt = attempt_directory(directory, stage.name)
        resumes = stage.ready and stage.resumable and _attempt_fingerprint(attempt) == stage.fingerprint()
        return (Status.RESUME if resumes else Status.RUN), None
    if not stage.ready:
        return Status.OPEN, finished
    if finished.manifest.fingerprint != stage.fingerprint():
        return Status.DRIFT, finished
    return Status.REUSE, finished


def run_stage(
    directory: Path,
    stage: Stage,
    work: Callable[[Path], Outcome],
    on_drift: OnDrift = OnDrift.REFUSE,
    runs: Mapping[str, str] | None = None,
) -> Finished:
    """Do a stage, or reuse what is there.

    Args:
        directory: the run directory.
        stage: what is to be done.
        work: writes the outputs into the attempt directory it is given; where the stage is resumable, what an
            earlier attempt of the same fingerprint left is still there.
        on_drift: what to do with a finished stage of another fingerprint.
        runs: ids of the Prefect and MLflow runs, for the manifest.

    Raises:
        DriftError: a finished stage differs from what is asked, and `on_drift` is REFUSE.
        CorruptStageError: a finished stage's files are missing or of another size.
    """
    state, finished = status(directory, stage)
    if finished is not None:
        _remove_replaced(finished.path)
        if state is Status.REUSE or on_drift is OnDrift.ACCEPT:
            return Finished(finished.path, finished.manifest, reused=True)
        if on_drift is OnDrift.REFUSE:
            raise DriftError(describe_drift(finished.manifest, stage))

    attempt = attempt_directory(directory, stage.name)
    if (unpublished := _unpublished(attempt, stage)) is not None:
        _publish(attempt, directory / stage.name)
        return Finished(directory / stage.name, unpublished)
    if state is not Status.RESUME and attempt.exists():
        shutil.rmtree(attempt)
    attempt.mkdir(parents=True, exist_ok=True)
    write_json(attempt / ATTEMPT_FILE, {"fingerprint": stage.fingerprint()})

    started = _now()
    outcome = work(attempt)
    manifest = _describe(attempt, stage, outcome, started, dict(runs or {}))
    write_json(attempt / MANIFEST, manifest.model_dump(mode="json"))
    _publish(attempt, directory / stage.name)
    return Finished(directory / stage.name, manifest)


def load_finished(path: Path) -> Finished | None:
    """The published stage at `path`, or None where there is none.

    Raises:
        CorruptStageError: the manifest cannot be read, or a file it lists is missing or has another size.
    """
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_text())
    except (FileNotFoundError, ValidationError) as error:
        raise CorruptStageError(
            f"{path} has no readable {MANIFEST} ({type(error).__name__}), so it is not a stage's output. "
            f"Delete or move that directory and run the same command again."
        ) from error
    for name, record in manifest.outputs.items():
        file = path / name
        size = file.stat().st_size if file.exists() else None
        if size != record.size:
            found = "is missing" if size is None else f"has {size} bytes instead of {record.size}"
            raise CorruptStageError(
                f"{file} {found}, so {manifest.stage} is no longer complete. "
                f"Delete {path} and run the same command again to rebuild it."
            )
    return Finished(path, manifest, reused=True)


def describe_drift(manifest: Manifest, stage: Stage) -> str:
    """Name every field in which a finished stage differs from what is asked, and the ways on."""
    before = _flatten({k: getattr(manifest, k) for k in ("version", "config", "inputs", "seed")})
    after = _flatten(stage.identity())
    changed = [
        f"  {key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return (
        f"{stage.name} is finished, but was made with another configuration:\n"
        + "\n".join(changed)
        + "\nChoose --on-drift rebuild (make it and what follows from it again), --on-drift accept (keep it as it "
        "is), or another --run name."
    )


def attempt_directory(directory: Path, stage_name: str) -> Path:
    final = directory / stage_name
    return final.with_name(f".{final.name}.attempt")


def _describe(attempt: Path, stage: Stage, outcome: Outcome, started: str, runs: dict[str, str]) -> Manifest:
    names = {str(p.relative_to(attempt)): p for p in sorted(attempt.rglob("*")) if p.is_file()}
    names = {name: p for name, p in names.items() if not name.startswith(".") and "/." not in name and name != MANIFEST}
    outputs = {
        name: FileRecord(size=p.stat().st_size, sha256=file_sha256(p))
        for name, p in names.items()
        if p.name not in LOGS
    }
    return Manifest(
        stage=stage.name,
        fingerprint=stage.fingerprint(),
        digest=_digest(outputs),
        **stage.identity(),
        outputs=outputs,
        logs=[name for name, p in names.items() if p.name in LOGS],
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        dropped=dict(outcome.dropped),
        command=list(outcome.command),
        code=code_version(),
        packages=package_versions(),
        started=started,
        ended=_now(),
        host=socket.gethostname(),
        runs=runs,
    )


def _unpublished(attempt: Path, stage: Stage) -> Manifest | None:
    """The manifest of an attempt that was stopped between writing it and the rename."""
    try:
        manifest = Manifest.model_validate_json((attempt / MANIFEST).read_text())
    except (FileNotFoundError, ValidationError):
        return None
    return manifest if manifest.fingerprint == stage.fingerprint() else None


def _publish(attempt: Path, final: Path) -> None:
    for leftover in attempt.glob(".*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    replaced = _remove_replaced(final)
    if final.exists():
        os.rename(final, replaced)
    os.rename(attempt, final)
    parent = os.open(final.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)
    _remove_replaced(final)


def _remove_replaced(final: Path) -> Path:
    """Remove what a rebuild replaced, also if an earlier process was killed before it could."""
    replaced = final.with_name(f".{final.name}.replaced")
    if replaced.exists():
        shutil.rmtree(replaced)
    return replaced


def _attempt_fingerprint(attempt: Path) -> str | None:
    try:
        return str(json.loads((attempt / ATTEMPT_FILE).read_text())["fingerprint"])
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None


def _under(outputs: Mapping[str, FileRecord], name: str) -> dict[str, FileRecord]:
    if name in outputs:
        return {"": outputs[name]}
    prefix = f"{name}/" if name else ""
    found = {key.removeprefix(prefix): record for key, record in outputs.items() if key.startswith(prefix)}
    if not found:
        raise KeyError(f"The stage has no output {name!r}; it has {', '.join(outputs)}.")
    return found


def _digest(outputs: Mapping[str, FileRecord]) -> str:
    return digest_of({name: record.sha256 for name, record in outputs.items()})


def digest_of(hashes: Mapping[str, str]) -> str:
    """One digest for a set of files, from their names and SHA-256 hashes."""
    lines = "".join(f"{name}\0{sha256}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _now() -> str:
    return datetime.now(UTC).isoformat()
