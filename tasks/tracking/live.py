"""Numbers that reach MLflow while a stage runs: what its program writes into its journal, and the machine's load.

A thread reads and sends every few seconds. MLflow neither delays nor fails a stage: what it does not take is kept and
sent later, and after some minutes the log says so. A step that MLflow has is not sent again, so a program that goes on
from a checkpoint, and a run that is continued, leave whole curves.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data.wording import duration
from tasks.datasets.demonstrations import SFT
from tasks.stage.contract import JOURNAL
from tasks.stage.logs import run_logger
from tasks.tracking.mlflow import HistoryError, MachineLoad, Tracking
from tasks.tracking.points import Point, points_of

SEND_SECONDS, LOAD_SECONDS = 5.0, 15.0
SILENT_SECONDS = 180.0  # without an answer from MLflow, before the log says so
CLOSE_SECONDS = 5.0  # for the thread to end, when the run does


@dataclass
class Followed:
    """A stage that runs: its iteration (None: in no iteration), its kind, its journal, and what was read of that."""

    iteration: int | None
    kind: str
    journal: Path
    read: int = 0

    def new_points(self) -> list[Point]:
        """The numbers of lines that were added. A journal that is shorter than before is read from its start."""
        if not self.journal.exists():
            return []
        content = self.journal.read_bytes()
        if len(content) < self.read:
            self.read = 0
        end = content.rfind(b"\n") + 1
        lines, self.read = content[self.read : end], max(end, self.read)
        return points_of(lines.decode(), self.kind, now_ms())


@dataclass
class Live:
    """Sends what the followed stages write; used as a context while a run is open."""

    tracking: Tracking
    _followed: list[Followed] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, name="live-metrics", daemon=True)
        self._silent_since: float | None = None
        self._said = False
        self._load, self._load_due = MachineLoad(), 0.0

    @contextlib.contextmanager
    def following(self, stage: str, attempt: Path) -> Iterator[None]:
        """Send what a stage's program writes, while it does. Its iteration's run in MLflow lives from now on."""
        followed = Followed(iteration_of(stage), stage.rpartition("/")[2], attempt / JOURNAL)
        with self._lock:
            self._followed.append(followed)
        if not self._thread.is_alive():
            self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._read(followed)
                self._followed.remove(followed)

    def close(self) -> None:
        """End the thread. What it has not sent yet is the tracking's backlog."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        while not self._over.wait(SEND_SECONDS):
            with self._lock:
                iterations = {followed.iteration for followed in self._followed}
                for followed in self._followed:
                    self._read(followed)
            if iterations and time.monotonic() >= self._load_due:
                self._load_due = time.monotonic() + LOAD_SECONDS
                self._measure_load(iterations)
            self._send(iterations)

    def _read(self, followed: Followed) -> None:
        try:
            self.tracking.queue(followed.iteration, followed.new_points())
        except (OSError, ValueError) as error:  # the stage's own end reads it again, and says what is wrong
            run_logger().debug("%s cannot be read: %s", followed.journal, error)

    def _measure_load(self, iterations: set[int | None]) -> None:
        now = now_ms()
        seconds = (now - self.tracking.started_ms) // 1000  # unlike a count, it goes on when a run is continued
        try:
            load = [Point(name, value, seconds, now) for name, value in self._load.measure().items()]
        except Exception as error:  # of a driver, for example; the losses are to be sent all the same
            run_logger().debug("The machine's load cannot be measured: %s", error)
            return
        for iteration in iterations:
            self.tracking.queue(iteration, load)

    def _send(self, iterations: set[int | None]) -> None:
        try:
            with self.tracking.reaching():
                for iteration in iterations - {None}:
                    assert iteration is not None
                    self.tracking.open_iteration(iteration)
                self.tracking.send_queued()
        except HistoryError as error:
            self._no_answer(error)
        except Exception as error:  # whatever it is, the next time may be better, and the run's end sends the rest
            run_logger().debug("MLflow: %s", error)
        else:
            if self._said:
                run_logger().info("MLflow answers again, and has everything.")
            self._silent_since, self._said = None, False

    def _no_answer(self, error: HistoryError) -> None:
        since = self._silent_since = self._silent_since or time.monotonic()
        silent = time.monotonic() - since
        if silent >= SILENT_SECONDS and not self._said:
            self._said = True
            run_logger().warning("%s It has not answered for %s. The run continues.", error, duration(silent))


def iteration_of(stage: str) -> int | None:
    """The number of the iteration that a stage belongs to: 2 for `iter-2/train`, 0 for a base, None for others."""
    place = stage.partition("/")[0]
    if place in ("base", SFT):
        return 0
    return int(place.removeprefix("iter-")) if place.startswith("iter-") else None


def now_ms() -> int:
    return time.time_ns() // 1_000_000
