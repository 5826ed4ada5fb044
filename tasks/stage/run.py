"""A run: its directory, its lock, and how its stages are executed or only planned.

A flow's loop is written once, against `Run`. With `planning=True`, the same loop is walked without executing anything:
each stage is recorded with what would happen to it. This is the dry run, and the check before a real run.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from data.errors import BAD_INPUT, AutodidactError
from data.files import write_json
from data.wording import duration
from models.config import ModelCode
from tasks.stage.contract import (
    MANIFEST,
    Artifact,
    Finished,
    OnDrift,
    Outcome,
    Stage,
    Status,
    load_finished,
    run_stage,
    status,
)
from tasks.stage.disks import DiskError, existing_parent
from tasks.stage.freed import finish_freeing, freed_stages, needed_error, stage_that_freed
from tasks.stage.logs import run_logger
from tasks.stage.process import await_children, run_child

LOCK, LOCK_HOLDER = ".lock", "lock.json"
CONFIG, SUMMARY = "config.json", "summary.json"  # the resolved settings; the result, once there is one
PLAN = "plan.json"  # the names of all stages in order, as planned at the last start of the run


class RunInUseError(AutodidactError):
    """Another process holds the run directory."""


class RunDirectoryError(DiskError):
    """The run directory cannot be written, or is not a run's directory."""

    exit_code = BAD_INPUT


@dataclass(frozen=True)
class Planned:
    """A stage of a dry run, and what would happen to it."""

    stage: Stage
    status: Status
    finished: Finished | None


@dataclass(frozen=True)
class Result:
    """A finished stage, or (when planning) one that will be: artifacts of the latter have no digest yet."""

    path: Path
    finished: Finished | None
    expected: Mapping[str, int] = field(default_factory=dict)

    @property
    def ended_ms(self) -> int:
        """When the finished stage ended, in milliseconds since 1970."""
        assert self.finished is not None
        return int(datetime.fromisoformat(self.finished.manifest.ended).timestamp() * 1000)

    def finished_files(self) -> set[str]:
        return set(self.finished.manifest.outputs) if self.finished else set()

    def artifact(self, name: str = "") -> Artifact:
        """Return one output, or (by default) all of them, with its expected number of rows."""
        made = self.finished.artifact(name) if self.finished else Artifact(self.path / name, None)
        return replace(made, expected=self.expected.get(name, 0))


@dataclass
class Run:
    """One named run of a flow."""

    start: ClassVar[Callable[..., None]] = staticmethod(run_child)
    """Starts a stage's program; same parameters as `run_child`."""

    directory: Path
    planning: bool = False
    on_drift: OnDrift = OnDrift.REFUSE
    ids: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    # For the estimates of the dry run: parameters of the model, if known, and tokens per training row.
    parameters: int | None = None
    row_tokens: int = 0
    virtual_tokens: int = 0  # that training puts in front of every row
    model_code: ModelCode = "refuse"  # for the policy and all policies trained from it
    decided_by: str | None = None  # the measure that decides, see data.measures
    recorder: Any = None  # a tasks.tracking.recorder.Recorder while the run is tracked
    plan: list[Planned] = field(default_factory=list)
    remake: frozenset[str] = frozenset()  # names of stages to make again because their freed files are needed
    lacking: dict[str, str] = field(default_factory=dict)  # while planning: such stages, and the first that needs each
    to_come: dict[str, Stage] = field(default_factory=dict)  # the planned stages that have not ended yet, by name
    _made_here: set[Path] = field(default_factory=set)
    _verified: set[Path] = field(default_factory=set)

    @property
    def in_front(self) -> dict[str, int]:
        """The part of `virtual_tokens` that changes what rows fit; nothing without any."""
        return {"virtual_tokens": self.virtual_tokens} if self.virtual_tokens else {}

    @property
    def child_lock(self) -> Path:
        return self.directory / ".child.lock"

    @property
    def scorer_lock(self) -> Path:
        """Lock of the program that scores while another one runs."""
        return self.directory / ".scorer.lock"

    def iteration(self, number: int) -> "Place":
        """The place of an iteration's stages, with its own seed."""
        return Place(self, f"iter-{number}", self.seed + number)

    def place(self, name: str) -> "Place":
        """A place of stages that use the run's seed."""
        return Place(self, name, self.seed)

    def execute(self, stage: Stage, work: Callable[[Path], Outcome]) -> Result:
        """Run a stage under the contract, as a Prefect task inside a flow run; or plan it."""
        if self.planning:
            return self._plan(stage)

        def body() -> Finished:
            return run_stage(
                self.directory,
                stage,
                lambda attempt: self._work(stage, attempt, work),
                self.on_drift,
                self.ids,
                remake=stage.name in self.remake,
            )

        finished = _as_prefect_task(stage.name, body)
        run_logger().info("%s", ending(finished))
        self.to_come.pop(stage.name, None)
        if not finished.reused:
            self._made_here.add(finished.path)
        return Result(finished.path, finished, stage.expected)

    def maker(self, artifact: Artifact) -> str:
        """The name of the run's stage that made an artifact; for any other artifact, its path."""
        made_by = _stage_directory(artifact.path, self.directory)
        return str(made_by.relative_to(self.directory)) if made_by else str(artifact.path)

    def _plan(self, stage: Stage) -> Result:
        state, finished = status(self.directory, stage, self.on_drift, stage.name in self.remake)
        keep = state is Status.REUSE or (state is Status.DRIFT and self.on_drift is OnDrift.ACCEPT)
        if not keep and state is not Status.OPEN:  # for an open stage, this is known only when its inputs exist
            for made_by in self._freed_inputs(stage):
                self.lacking.setdefault(str(made_by.relative_to(self.directory)), stage.name)
        self.plan.append(Planned(stage, state, finished))
        return Result(self.directory / stage.name, finished if keep else None, stage.expected)

    def _freed_inputs(self, stage: Stage) -> list[Path]:
        """The stages whose freed files a stage reads."""
        read = [artifact.path for artifact in (*stage.inputs.values(), *stage.observed.values()) if artifact.digest]
        found = [stage_that_freed(path) for path in read if self.directory in path.parents]
        return [made_by for made_by in found if made_by is not None]

    def _work(self, stage: Stage, attempt: Path, work: Callable[[Path], Outcome]) -> Outcome:
        """Do a stage's work, followed by the recorder."""
        self._verify_inputs(stage)
        with self.recorder.live.following(stage.name, attempt) if self.recorder else nullcontext():
            return work(attempt)

    def _verify_inputs(self, stage: Stage) -> None:
        """Verify the files of earlier processes before a stage reads them."""
        for freed in self._freed_inputs(stage):
            raise needed_error(stage.name, freed)
        for artifact in (*stage.inputs.values(), *stage.observed.values()):
            artifact.require()
            made_by = _stage_directory(artifact.path, self.directory)
            if made_by is None or made_by in self._made_here | self._verified:
                continue
            if (found := load_finished(made_by)) is not None:
                found.verify()
            self._verified.add(made_by)


@dataclass(frozen=True)
class Place:
    """Where stages go in a run, `iter-1` or `final/base`, and their random seed."""

    run: Run
    name: str
    seed: int

    def stage(self, kind: str) -> str:
        """The name of a stage of that kind: `iter-1/train`; `final/base-likelihood`, but `final/base` for evaluate."""
        if "/" not in self.name:
            return f"{self.name}/{kind}"
        return self.name if kind == "evaluate" else f"{self.name}-{kind}"

    @property
    def folder(self) -> Path:
        """The folder of the iteration, or of the final stages."""
        return self.run.directory / self.name.partition("/")[0]


@contextmanager
def open_run(directory: Path, config: dict[str, Any], on_drift: OnDrift, seed: int = 0) -> Iterator[Run]:
    """Lock a run directory for this process, and write the resolved configuration into it.

    Raises:
        RunInUseError: another process, which the message names, has it open.
        StillRunningError: a killed process's program does not end.
    """
    with hold_run(directory) as run:
        run.on_drift, run.seed = on_drift, seed
        write_json(directory / CONFIG, config)
        yield run


@contextmanager
def hold_run(directory: Path) -> Iterator[Run]:
    """Lock a run directory for this process, and finish removals that a kill interrupted in it.

    Raises:
        RunInUseError: another process, which the message names, has it open.
        StillRunningError: a killed process's program does not end.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / LOCK, timeout=0)
    try:
        with lock:
            me = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
            write_json(directory / LOCK_HOLDER, me)
            run = Run(directory)
            for program_lock in (run.child_lock, run.scorer_lock):
                await_children(program_lock)
            finish_freeing(directory)
            try:
                yield run
            finally:
                (directory / LOCK_HOLDER).unlink(missing_ok=True)
    except Timeout:
        who = describe_holder(directory)
        raise RunInUseError(
            f"{directory} is in use by {who}.",
            what_next="Wait for it, stop it, or choose another --run name.",
        ) from None


def finish_interrupted(directory: Path) -> None:
    """Finish what a kill interrupted in a run that is otherwise finished and would not be opened again.

    Raises:
        RunInUseError: see `hold_run`.
    """
    if (directory / LOCK_HOLDER).exists() or any(not freed.done for _, freed in freed_stages(directory)):
        with hold_run(directory):
            pass


def describe_holder(directory: Path) -> str:
    """Describe the process that holds a run, from the note beside its lock."""
    try:
        who = json.loads((directory / LOCK_HOLDER).read_text())
        since = datetime.fromisoformat(who["since"]).astimezone()
        return f"process {who['pid']} on {who['host']} since {since:%Y-%m-%d %H:%M}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def check_writable(directory: Path) -> None:
    """Check that a run can be kept in `directory`, which need not exist yet.

    Raises:
        RunDirectoryError: a part of the path is a file, or it cannot be written.
    """
    ways_on = "Choose another --runs-dir or --run name"
    try:
        there = existing_parent(directory)
        if not there.is_dir():
            raise RunDirectoryError(
                f"{directory} cannot be the run's folder, because {there} is not a folder.",
                what_next=f"{ways_on}.",
            )
        with TemporaryFile(dir=there):
            pass
        for lock in directory.glob(".*lock"):
            lock.open("a").close()
    except OSError as error:
        raise RunDirectoryError(
            f"The run's folder {directory} cannot be written: {error.strerror}.",
            what_next=f"{ways_on}, or check the disk and the folder's permissions.",
        ) from error


def ending(finished: Finished) -> str:
    """The last line of a stage in the log."""
    name, seconds = finished.manifest.stage, finished.manifest.seconds
    if finished.reused:
        return f"{name}: finished before, reused"
    return f"{name}: {finished.said or 'finished'}" + (f" ({duration(seconds)})" if seconds >= 1 else "")


def _stage_directory(path: Path, root: Path) -> Path | None:
    """The stage that contains `path`: the nearest parent with a manifest, below `root`."""
    for parent in (path, *path.parents):
        if parent == root or root not in parent.parents:
            return None
        if (parent / MANIFEST).exists():
            return parent
    return None


def _as_prefect_task(name: str, body: Callable[[], Finished]) -> Finished:
    from prefect import Task
    from prefect.cache_policies import NO_CACHE
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return body()
    stage_task = Task(
        fn=body, name=name.rsplit("/", 1)[-1], task_run_name=name, persist_result=False, cache_policy=NO_CACHE
    )
    return stage_task()
