"""The stage contract: how a stage's output is named, published, recognized, reused and refused.

A stage writes one directory. Work happens in an attempt directory beside it; `manifest.json` is written last, and
one atomic rename publishes everything. A stage is done if and only if its manifest validates. Nothing here knows
what a stage computes, or about Prefect and MLflow.
"""

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from data.errors import AutodidactError
from data.files import file_sha256, flush, write_json
from tasks.stage.disks import explain_disk_errors
from tasks.stage.freed import freed_files
from tasks.stage.provenance import code_version, package_versions

MANIFEST = "manifest.json"
# Hidden files (this one, locks, checkpoints) are only for the attempt and not part of the output.
ATTEMPT_FILE = ".attempt.json"
# Files that differ between two runs of the same stage (times, throughput, paths): kept, but not in the digest.
PROGRAM, MERGE, SCORER = "program.json", "merge.json", "scorer.json"
JUDGE, SCORING = "judge-program.json", "scoring.json"
JOURNAL = "metrics.jsonl"  # what a program measures while it runs: lines of a step and numbers
LOGS = frozenset({"log.txt", JOURNAL, PROGRAM, MERGE, SCORER, JUDGE, SCORING})  # *.json: program configs


class DriftError(AutodidactError):
    """A finished stage was made with another configuration or from other inputs than requested now."""


class CorruptStageError(AutodidactError):
    """A finished stage's files do not match its manifest: the sentence `damage` says which and how."""

    def __init__(self, damage: str, stage: Path) -> None:
        super().__init__(
            damage,
            "Nothing was deleted.",
            "Run the same command again with --on-drift rebuild to make the stage again (later stages are kept if its "
            f"result is the same), or delete {stage} and run the same command again.",
        )
        self.args = (damage, stage)


class OnDrift(StrEnum):
    REFUSE = "refuse"
    REBUILD = "rebuild"
    ACCEPT = "accept"


class Status(StrEnum):
    RUN = "run"
    RESUME = "resume"
    REUSE = "reuse"
    DRIFT = "drift"
    OPEN = "open"  # finished, but whether it can be reused depends on inputs that do not exist yet


class FileRecord(BaseModel):
    """An output file as the stage wrote it."""

    model_config = ConfigDict(frozen=True)
    size: int
    sha256: str

    def difference(self, file: Path, in_full: bool) -> str | None:
        """Return how a file's size, or `in_full` its content, differs from this record; None if it does not."""
        try:
            size = file.stat().st_size
            if size != self.size:
                return f"has {size} bytes instead of {self.size}"
            if in_full and file_sha256(file) != self.sha256:
                return f"was changed after it was written (its SHA-256 differs from {MANIFEST})"
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None


class Manifest(BaseModel):
    """Description of a finished stage: its outputs, inputs, settings and code."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")
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
    samples: int = 0  # as estimated before it began, for later estimates of time; 0 if it was not made in one go
    dropped: dict[str, int]
    origin: dict[str, str] = {}  # for a model from the hub: its name and commit
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

    @field_validator("started", "ended")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        datetime.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        identity = {key: getattr(self, key) for key in ("version", "config", "inputs", "seed")}
        if self.digest != _digest(self.outputs) or self.fingerprint != _fingerprint(identity):
            raise ValueError("its parts contradict each other")
        return self


@dataclass(frozen=True)
class Artifact:
    """A file or directory that a stage reads.

    Attributes:
        digest: None while the stage that makes it is only planned.
        expected: expected number of rows, for the dry run; 0 if unknown.
    """

    path: Path
    digest: str | None
    expected: int = field(default=0, compare=False)

    def require(self) -> str:
        """Return the digest of an artifact that exists."""
        if self.digest is None:
            raise RuntimeError(f"{self.path} is needed before the stage that makes it has run.")
        return self.digest


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a stage, for the dry run: upper bounds, from the configuration only.

    Attributes:
        gpu_bytes: per device; for generation without the KV cache.
        checkpoint_bytes: the part of `disk_bytes` that stays after training, until the checkpoint is freed.
        kept_bytes: the part that stays after training in any case.
        cached: whether a KV cache takes what is left of a GPU.
    """

    samples: int = 0
    tokens: int = 0
    disk_bytes: int = 0
    gpu_bytes: int | None = None
    devices: int = 0
    checkpoint_bytes: int = 0
    kept_bytes: int = 0
    cached: bool = False

    @classmethod
    def one_after_another(cls, parts: Sequence["Estimate"]) -> "Estimate":
        """Combined estimate of sequential parts. Memory is unknown if it is unknown for a part that uses a device."""
        memory = [part.gpu_bytes for part in parts if part.devices]
        known = [size for size in memory if size is not None]
        return cls(
            samples=sum(part.samples for part in parts),
            tokens=sum(part.tokens for part in parts),
            disk_bytes=sum(part.disk_bytes for part in parts),
            gpu_bytes=max(known) if len(known) == len(memory) > 0 else None,
            devices=max((part.devices for part in parts), default=0),
            checkpoint_bytes=sum(part.checkpoint_bytes for part in parts),
            kept_bytes=sum(part.kept_bytes for part in parts),
            cached=any(part.cached for part in parts),
        )


@dataclass(frozen=True)
class Stage:
    """A stage to run: its name in the run directory and everything that decides its result.

    `config` and `inputs` (with `version` and `seed`) make the fingerprint. What does not change the result — device
    counts, paths, shard sizes, ports — belongs in neither.

    `observed` is read like inputs, and must exist and be complete when the stage starts, but does not affect the
    result: a finished stage is reused whatever it observed. `expected` is the expected number of rows of each output,
    by its path within the stage; it does not affect the result either.
    """

    name: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, Artifact]
    seed: int = 0
    resumable: bool = False
    command: str = ""
    estimate: Estimate = field(default_factory=Estimate)
    observed: Mapping[str, Artifact] = field(default_factory=dict)
    expected: Mapping[str, int] = field(default_factory=dict)

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
        return _fingerprint(self.identity())


@dataclass(frozen=True)
class Outcome:
    """What a stage's work reports: for its manifest and, in `said`, for the log."""

    rows_in: int | None = None
    rows_out: int | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    said: str = ""


@dataclass(frozen=True)
class Finished:
    """A published stage; `said` is for the log if the work was done just now."""

    path: Path
    manifest: Manifest
    reused: bool = False
    said: str = ""

    def artifact(self, name: str = "") -> Artifact:
        """Return one output file, one folder of output files, or (by default) all of them, with its own digest."""
        return Artifact(self.path / name, _digest(_under(self.manifest.outputs, name)))

    def damages(self, in_full: bool = True, under: str = "") -> Iterator[str]:
        """Yield a sentence for every output file whose size or, `in_full`, SHA-256 differs from its record.

        A freed file is gone on purpose and not damaged.

        Args:
            under: only that file, or those of that folder.
        """
        freed = freed_files(self.path)
        for name, record in self.manifest.outputs.items():
            if not Path(name).is_relative_to(under):
                continue
            if name not in freed and (difference := record.difference(self.path / name, in_full)):
                yield f"{self.path / name} {difference}, so {self.manifest.stage} cannot be reused."

    def verify(self, in_full: bool = True, under: str = "") -> None:
        """Compare every output file with its recorded size and, `in_full`, its SHA-256.

        Args:
            under: only that file, or those of that folder.

        Raises:
            CorruptStageError: naming the first file that differs.
        """
        if damage := next(self.damages(in_full, under), None):
            raise CorruptStageError(damage, self.path)


def status(
    directory: Path, stage: Stage, on_drift: OnDrift = OnDrift.REFUSE, remake: bool = False
) -> tuple[Status, Finished | None]:
    """Return what running `stage` in `directory` would do, found in milliseconds from manifests and file sizes.

    If `on_drift` is REBUILD, files are read in full, and a stage with a damaged file counts as missing. With `remake`,
    so does one with freed files.

    Raises:
        CorruptStageError: a manifest is there, but not the files it lists.
    """
    finished = _load_or_rebuild(directory / stage.name, on_drift)
    if finished is not None and remake and freed_files(finished.path):
        finished = None
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
    remake: bool = False,
) -> Finished:
    """Run a stage, or reuse it if it is finished.

    Args:
        directory: the run directory.
        stage: the stage to run.
        work: writes the outputs into the attempt directory it gets. If the stage is resumable, the directory still has
            the files of an earlier attempt with the same fingerprint.
        on_drift: what to do with a finished stage of another fingerprint; REBUILD also makes a damaged one again.
        runs: ids of the Prefect and MLflow runs, for the manifest.
        remake: make a finished stage with freed files again.

    Raises:
        DriftError: a finished stage differs from what is requested, and `on_drift` is REFUSE.
        CorruptStageError: a finished stage's files are missing or of another size.
        DiskError: a disk is full or read-only.
    """
    state, finished = status(directory, stage, on_drift, remake)
    if finished is not None:
        _remove_replaced(finished.path)
        if state is Status.REUSE or on_drift is OnDrift.ACCEPT:
            return Finished(finished.path, finished.manifest, reused=True)
        if on_drift is OnDrift.REFUSE:
            raise drift_error(finished.manifest, stage)

    attempt, final = attempt_directory(directory, stage.name), directory / stage.name
    with explain_disk_errors(stage.name, directory):
        if (unpublished := _unpublished(attempt, stage)) is not None:
            _publish(attempt, final)
            return Finished(final, unpublished)
        if state is not Status.RESUME and attempt.exists():
            shutil.rmtree(attempt)
        attempt.mkdir(parents=True, exist_ok=True)
        write_json(attempt / ATTEMPT_FILE, {"fingerprint": stage.fingerprint()})
        started, began = _now(), time.monotonic()
        outcome = work(attempt)
        # From the monotonic clock: the system clock can be set back while the stage runs.
        ended = started + timedelta(seconds=time.monotonic() - began)
        manifest = _describe(attempt, stage, outcome, started, ended, dict(runs or {}))
        if state is Status.RESUME:  # its time is that of the rest
            manifest = manifest.model_copy(update={"samples": 0})
        write_json(attempt / MANIFEST, manifest.model_dump(mode="json"))
        _publish(attempt, final)
    return Finished(final, manifest, said=outcome.said)


def load_finished(path: Path) -> Finished | None:
    """Return the published stage at `path`, or None if there is none.

    Raises:
        CorruptStageError: the manifest cannot be read, or a file it lists is missing or has another size.
    """
    if not path.exists():
        return None
    finished = Finished(path, read_manifest(path), reused=True)
    finished.verify(in_full=False)
    return finished


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the stage at `path`.

    Raises:
        CorruptStageError: it is missing or cannot be read.
    """
    file = path / MANIFEST
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        damage = f"{file} {_wrong_with_manifest(error)}, so the files in {path} cannot be verified."
        raise CorruptStageError(damage, path) from error


def _load_or_rebuild(path: Path, on_drift: OnDrift) -> Finished | None:
    try:
        finished = load_finished(path)
        if finished is not None and on_drift is OnDrift.REBUILD:
            finished.verify()
    except CorruptStageError:
        if on_drift is OnDrift.REBUILD:
            return None
        raise
    return finished


def _wrong_with_manifest(error: OSError | ValidationError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror})"
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "is not complete JSON"
    where = ".".join(str(part) for part in first["loc"])
    return f"is damaged, or of another version of Autodidact ({where + ': ' if where else ''}{first['msg']})"


def drift_error(manifest: Manifest, stage: Stage) -> DriftError:
    """The error that names every field in which a finished stage differs from what is asked, and the ways on."""
    before = flatten({k: getattr(manifest, k) for k in ("version", "config", "inputs", "seed")})
    after = flatten(stage.identity())
    changed = [
        f"  {key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]
    return DriftError(
        f"{stage.name} is finished, but was made with another configuration:\n",
        "\n".join(changed) + "\n",
        "Choose --on-drift rebuild (make it and the stages that depend on it again), --on-drift accept (keep it as it "
        "is), or another --run name.",
    )


def attempt_directory(directory: Path, stage_name: str) -> Path:
    final = directory / stage_name
    return final.with_name(f".{final.name}.attempt")


def _describe(
    attempt: Path, stage: Stage, outcome: Outcome, started: datetime, ended: datetime, runs: dict[str, str]
) -> Manifest:
    names = {str(p.relative_to(attempt)): p for p in sorted(attempt.rglob("*")) if p.is_file()}
    names = {name: p for name, p in names.items() if not name.startswith(".") and "/." not in name and name != MANIFEST}
    for file in names.values():
        if not file.is_symlink():
            flush(file)
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
        samples=stage.estimate.samples,
        dropped=dict(outcome.dropped),
        command=list(outcome.command),
        origin=dict(outcome.origin),
        code=code_version(),
        packages=package_versions(),
        started=started.isoformat(),
        ended=ended.isoformat(),
        host=socket.gethostname(),
        runs=runs,
    )


def _unpublished(attempt: Path, stage: Stage) -> Manifest | None:
    """Return the manifest of an attempt that was stopped after writing it but before the rename."""
    try:
        found = load_finished(attempt)
    except CorruptStageError:
        return None
    return found.manifest if found and found.manifest.fingerprint == stage.fingerprint() else None


def _publish(attempt: Path, final: Path) -> None:
    for leftover in attempt.glob(".*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    replaced = _remove_replaced(final)
    if final.exists():
        os.rename(final, replaced)
    os.rename(attempt, final)
    flush(final.parent)
    _remove_replaced(final)


def _remove_replaced(final: Path) -> Path:
    """Remove the stage that a rebuild replaced, including one left by a killed process."""
    replaced = final.with_name(f".{final.name}.replaced")
    if replaced.exists():
        shutil.rmtree(replaced)
    return replaced


def _attempt_fingerprint(attempt: Path) -> str | None:
    try:
        return str(json.loads((attempt / ATTEMPT_FILE).read_text())["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _under(outputs: Mapping[str, FileRecord], name: str) -> dict[str, FileRecord]:
    if name in outputs:
        return {"": outputs[name]}
    prefix = f"{name}/" if name else ""
    found = {key.removeprefix(prefix): record for key, record in outputs.items() if key.startswith(prefix)}
    if not found:
        raise KeyError(f"The stage has no output {name!r}; it has {', '.join(outputs)}.")
    return found


def _fingerprint(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _digest(outputs: Mapping[str, FileRecord]) -> str:
    return digest_of({name: record.sha256 for name, record in outputs.items()})


def digest_of(hashes: Mapping[str, str]) -> str:
    """Return one digest for a set of files, from their names and SHA-256 hashes."""
    lines = "".join(f"{name}\0{sha256}\n" for name, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings into names such as `stop.rule`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _now() -> datetime:
    return datetime.now(UTC)
