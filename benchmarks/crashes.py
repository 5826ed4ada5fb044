"""Kills loops at random times and chosen moments; each must end as if undisturbed. Takes an hour.

One loop is left alone. Every other one is killed up to `KILLS_PER_LOOP` times and started again with the same command
after each kill. Once it is done, its digests, rows and history must equal those of the first, and nothing else may be
left: no process, no lock, no attempt.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import psutil

from benchmarks.crash_checks import read_traces
from benchmarks.crash_driver import (
    IDS,
    MANIFEST,
    MLFLOW,
    OF_A_PROGRAM,
    ORDERS,
    OTHER,
    POSITIONS,
    PUBLISHING,
    ROWS,
    SHARD,
    SQL,
    TABLES,
    Orders,
    Victim,
    strike,
)
from benchmarks.measure import show
from tasks.stage import contract

DRIVER = Path(__file__).with_name("crash_driver.py")
RUN = "crashed"
KILLS, KILLS_PER_LOOP = 100, 15
ANY_TIME, IN_A_STAGE, AS_A_FILE_APPEARS = "at any time", "in a stage", "as a file appears"
# A kill falls into one of the next few stages, so a loop takes many kills.
STAGES_AHEAD = 3
MOST = {PUBLISHING: 3, MANIFEST: 3, IDS: 4, OTHER: 6, ROWS: 3, SHARD: 3, MLFLOW: 9, SQL: 20, TABLES: 300}
MOST_FILES = 9
# A supervisor gives its program five seconds between SIGTERM and SIGKILL.
ORPHAN_SECONDS = 10.0
# Repeated failures need not be shown more often.
MOST_FAILURES, FAULTS_SHOWN = 10, 12
SETTINGS = """
iterations: 1
limit: 96
limit_validation: 48
limit_test: 48
limit_transfer: 48
stop: {rule: none}
bootstrap:
  demonstrations: 512
  train: {learning_rate: 3.0e-3, epochs: 8, batch_size: 32, dtype: float32, warmup: 0.05}
generate: {samples: 4, max_tokens: 40, dtype: float32}
train: {learning_rate: 5.0e-4, epochs: 2, batch_size: 8, dtype: float32}
evaluate: {samples: 2, pass_at: [1, 2]}
engine: {shard_size: 64}
launch: {checkpoint_steps: 2, log_steps: 1}
"""


def main() -> None:
    # A shell starts its background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="autodidact-crashes-"))
    settings = folder / "settings.yaml"
    settings.write_text(SETTINGS)
    autodidact = str(Path(sys.executable).with_name("autodidact"))

    def command(runs: Path) -> list[str]:
        return [autodidact, "rest-em", "--config", str(settings), "--runs-dir", str(runs), "--run", RUN]

    # Fills the cache with the base, which is not trained again, and warms up the disk before anything is timed.
    first = [sys.executable, *command(folder / "first")]
    subprocess.run(first, check=True, stdout=subprocess.DEVNULL, env=environment(folder / "cache"))
    report = crash(command, folder)
    show_report(report)
    if report.failures:
        print(*report.failures, f"All files are kept in {folder}.", sep="\n\n", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Aim:
    """Whom to kill, and when: at a position in a place that the driver watches, or at a moment seen from outside."""

    victim: Victim
    place: str
    position: str = ""
    count: int = 0  # how often the place is reached, or how many files appear
    stage: str = ""
    seconds: float = 0.0

    @property
    def moment(self) -> str:
        return f"{self.position} {self.place}".strip()

    def __str__(self) -> str:
        where = f" {self.stage}" if self.stage else f", number {self.count}" if self.count else ""
        return f"{self.victim}, {self.moment}{where}" + (f", after {self.seconds:.1f} s" if self.seconds else "")


@dataclass
class Kill:
    """A kill and its outcome. `lost`: seconds from start to end, minus those of the stages published in between."""

    number: int
    loop: int
    aim: Aim
    at: str  # what the driver was about to do
    lost: float = 0.0
    orphans: int = 0
    survived: bool = True

    def __str__(self) -> str:
        return f"kill {self.number} (loop {self.loop}): {self.aim}" + (f" [{self.at}]" if self.at else "")


@dataclass
class Report:
    """All kills, and a description of every failure. `undisturbed` is the wall time of the loop that was left alone."""

    seed: int
    undisturbed: float
    loops: int = 0
    seconds: float = 0.0  # wall time of all starts of the other loops
    kills: list[Kill] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def crash(
    command: Callable[[Path], Sequence[str]],
    folder: Path,
    kills: int = KILLS,
    kills_per_loop: int = KILLS_PER_LOOP,
    seed: int = 0,
    workers: bool = False,
) -> Report:
    """Kill loops until there were `kills` kills, and check each loop when it is done.

    Args:
        command: the script and arguments that run the loop, as the run RUN in the given runs folder.
        folder: an empty folder for everything; the loops share its cache.
        workers: give each stage's program a worker, if the programs have none that could be killed.
    """
    crasher = Crasher(command, folder, seed, workers)
    while len(crasher.report.kills) < kills and len(crasher.report.failures) < MOST_FAILURES:
        crasher.crash_loop(min(kills_per_loop, kills - len(crasher.report.kills)))
    return crasher.report


class Crasher:
    """Starts loops, kills them and checks them; `report` grows with every kill."""

    def __init__(self, command: Callable[[Path], Sequence[str]], folder: Path, seed: int, workers: bool) -> None:
        self.command, self.folder, self.workers = command, folder, workers
        self.cache, self.limit = folder / "cache", 1200.0
        self.random = random.Random(seed)
        self.deck: list[Aim] = []
        self.report = Report(seed, 0.0)
        self._leave_one_alone()
        self.limit = 120 + 5 * self.report.undisturbed

    def _leave_one_alone(self) -> None:
        runs = self.folder / "alone"
        with self._start(runs, None) as start:
            code = start.end(self.limit)
        if code != 0:
            raise RuntimeError(f"The loop that was left alone ended with exit code {code}. See {start.log}.")
        self.traces = read_traces(runs, RUN, self.cache)
        if self.traces.faults:
            raise RuntimeError("The loop that was left alone has faults:\n" + "\n".join(self.traces.faults))
        made = sorted(self.traces.stages.items(), key=lambda item: item[1].manifest.started)
        self.seconds = {name: stage.manifest.seconds for name, stage in made}
        self.with_program = {name for name, stage in made if stage.manifest.command and name != "base"}
        self.report.undisturbed = start.seconds
        print(f"left alone: {self.report.undisturbed:.1f} s", flush=True)

    def crash_loop(self, most: int) -> None:
        """Kill a loop up to `most` times, let it end, and check what it leaves."""
        report = self.report
        report.loops += 1
        runs, kills = self.folder / f"loop-{report.loops}", list[Kill]()
        code, killed = None, True
        while killed and code != 0:
            code, killed = self._start_once(runs, kills, self._aim(runs) if len(kills) < most else None)
        faults = ["it does not finish"]
        if code == 0:
            faults = read_traces(runs, RUN, self.cache).against(self.traces)
        print(f"loop {report.loops}: {len(faults)} faults", flush=True)
        if faults:
            more = [f"… {len(faults)} faults in all"] if len(faults) > FAULTS_SHOWN else []
            told = [
                f"loop {report.loops} in {runs}:",
                *faults[:FAULTS_SHOWN],
                *more,
                *(f"after {kill}" for kill in kills),
            ]
            report.failures.append("\n  ".join(told))
            for kill in kills:
                kill.survived = False

    def _start_once(self, runs: Path, kills: list[Kill], aim: Aim | None) -> tuple[int | None, bool]:
        """Start a loop, and kill if the moment comes. Return the exit code and whether something was killed."""
        report, left = self.report, self._left(runs)
        with self._start(runs, aim) as start:
            killed = aim is not None and self._kill(runs, start, aim)
            code = start.end(self.limit)
            orphans = start.orphans()
        report.seconds += start.seconds
        who = f"loop {report.loops}, which nothing killed any more"
        if aim and killed:
            lost = start.seconds - sum(self.seconds[name] for name in left if name not in self._left(runs))
            kill = Kill(len(report.kills) + 1, report.loops, aim, start.reached(), lost, len(orphans))
            kill.survived = not orphans and code is not None
            kills.append(kill)
            report.kills.append(kill)
            who = str(kill)
            print(f"{who}: {lost:.1f} s lost, {len(orphans)} orphans", flush=True)
        report.failures += [f"{who}: {name} still ran {ORPHAN_SECONDS:.0f} s after the flow." for name in orphans]
        if code is None:
            report.failures.append(f"{who}: the flow had not ended {self.limit:.0f} s later. See {start.log}.")
        elif code != 0 and not killed:
            report.failures.append(f"{who}: the flow failed with exit code {code}. See {start.log}.")
        return code, killed

    def _left(self, runs: Path) -> list[str]:
        """Stages not yet published, in their order."""
        return [name for name in self.seconds if not (runs / RUN / name / contract.MANIFEST).exists()]

    def _aim(self, runs: Path) -> Aim:
        """The next possible kill from a shuffled deck of every moment with every possible victim."""
        ahead = self._left(runs)[:STAGES_AHEAD]
        programs = [name for name in ahead if name in self.with_program]
        new = not (runs / "mlflow.db").exists()
        while True:
            for aim in self.deck:
                stages = programs if aim.victim in OF_A_PROGRAM or aim.place == SHARD else ahead
                possible = bool(stages) or aim.place in (ANY_TIME, IDS, OTHER, MLFLOW, SQL)
                if new if aim.place == TABLES else possible:
                    self.deck.remove(aim)
                    return self._sharpen(aim, ahead, stages)
            self.deck += self.random.sample(deck := every_aim(), len(deck))

    def _sharpen(self, aim: Aim, ahead: list[str], stages: list[str]) -> Aim:
        """Choose the exact moment: within the next few stages, if that can be predicted."""
        if aim.place == ANY_TIME:
            around = self.report.undisturbed - sum(self.seconds.values())
            return replace(aim, seconds=self.random.uniform(0, around + sum(self.seconds[name] for name in ahead)))
        if aim.place == IN_A_STAGE:
            stage = self.random.choice(stages)
            return replace(aim, stage=stage, seconds=self.random.uniform(0, self.seconds[stage]))
        most = MOST_FILES if aim.place == AS_A_FILE_APPEARS else MOST[aim.place]
        if aim.place == PUBLISHING:
            most = min(most, len(ahead))
        return replace(aim, count=self.random.randint(1, most))

    def _start(self, runs: Path, aim: Aim | None) -> "Start":
        watched = aim is not None and bool(aim.position)
        runs.mkdir(exist_ok=True)
        number = len(list(runs.glob("start-*.log"))) + 1
        orders = Orders(uuid.uuid4().hex, str(runs / f"start-{number}.reached"), workers=self.workers)
        if aim and watched:
            orders = replace(orders, place=aim.place, position=aim.position, call=aim.count, victim=aim.victim)
        driver = [str(DRIVER)] if watched or self.workers else []
        command = [sys.executable, *driver, *self.command(runs)]
        return Start(command, environment(self.cache), orders, runs / f"start-{number}.log")

    def _kill(self, runs: Path, start: "Start", aim: Aim) -> bool:
        """Wait for the moment and kill, or let the driver do both. False: the flow ended first."""
        if aim.position:
            start.wait_for(lambda: bool(start.reached()), self.limit)
            return bool(start.reached())
        moment = {
            ANY_TIME: lambda: time.monotonic() > start.began + aim.seconds,
            IN_A_STAGE: stage_begins(runs / RUN, aim.stage, aim.seconds),
            AS_A_FILE_APPEARS: files_appear(runs / RUN, aim.count),
        }[aim.place]
        return start.wait_for(moment, self.limit) and start.wait_for(lambda: strike(aim.victim, start.pid), self.limit)


class Start:
    """One start of a flow and all its descendants, which carry a marker in their environment."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], orders: Orders, log: Path) -> None:
        self.orders, self.log = orders, log
        self.began, self.seconds = time.monotonic(), 0.0
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=environment | orders.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind, even if the crash test itself is interrupted."""
        self.process.kill()
        self.process.wait()
        for process in self._processes().values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    def reached(self) -> str:
        """The call at which the driver killed; empty if it has not."""
        file = Path(self.orders.reached)
        return file.read_text() if file.exists() else ""

    def wait_for(self, happened: Callable[[], bool], limit: float) -> bool:
        """Wait until something has happened. False: the flow ended first, or `limit` seconds have passed."""
        deadline = time.monotonic() + limit
        while self.process.poll() is None and time.monotonic() < deadline:
            if happened():
                return True
            time.sleep(0.005)
        return False

    def end(self, limit: float) -> int | None:
        """Wait for the flow to end. Return its exit code, or None if it had to be killed after `limit` seconds."""
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            self.seconds = time.monotonic() - self.began

    def orphans(self) -> list[str]:
        """Wait for everything the flow started to end. Return the command lines of what still runs after a while."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        self.seconds = time.monotonic() - self.began
        return list(left)

    def _processes(self) -> dict[str, psutil.Process]:
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if self.orders.marker in process.environ().get(ORDERS, ""):
                    found[f"process {process.pid} ({' '.join(process.cmdline())[:120]})"] = process
        return found


def environment(cache: Path) -> dict[str, str]:
    """The environment of a loop: none of the caller's servers, and its own cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    return kept | {"AUTODIDACT_CACHE": str(cache), "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}


def every_aim() -> list[Aim]:
    """Every moment with every victim possible then."""
    of_the_flow = [victim for victim in Victim if victim not in OF_A_PROGRAM]
    victims = {ANY_TIME: of_the_flow, IN_A_STAGE: list(Victim), AS_A_FILE_APPEARS: list(Victim), SHARD: list(Victim)}
    outside = [Aim(victim, place) for place in (ANY_TIME, IN_A_STAGE, AS_A_FILE_APPEARS) for victim in victims[place]]
    return outside + [
        Aim(victim, place, position)
        for place, positions in POSITIONS.items()
        for position in positions
        for victim in victims.get(place, of_the_flow)
    ]


def stage_begins(directory: Path, stage: str, seconds: float) -> Callable[[], bool]:
    """A check whether an attempt at a stage has begun since now, at least `seconds` ago."""
    file, now = contract.attempt_directory(directory, stage) / contract.ATTEMPT_FILE, time.time()
    seen: list[float] = []

    def began() -> bool:
        if not seen:
            with contextlib.suppress(FileNotFoundError):
                seen.extend(changed for changed in [file.stat().st_mtime] if changed > now)
        return bool(seen) and time.time() > seen[0] + seconds

    return began


def files_appear(directory: Path, count: int) -> Callable[[], bool]:
    """A check whether `count` files or folders have appeared in attempts since now."""

    def in_attempts() -> set[Path]:
        attempts = [*directory.glob(".*.attempt"), *directory.glob("*/.*.attempt")]
        return {path for attempt in attempts for path in attempt.rglob("*")}

    known, new = in_attempts(), set[Path]()

    def appeared() -> bool:
        with contextlib.suppress(FileNotFoundError):
            new.update(in_attempts() - known)
        return len(new) >= count

    return appeared


def show_report(report: Report) -> None:
    """Print the kills by place and victim, and the totals."""
    rows = []
    for place in dict.fromkeys(aim.place for aim in every_aim()):
        for victim in Victim:
            found = [kill for kill in report.kills if (kill.aim.place, kill.aim.victim) == (place, victim)]
            rows += [[place, victim, *_figures(found)]] if found else []
    rows.append(["all", "", *_figures(report.kills)])
    title = f"{len(report.kills)} kills in {report.loops} loops, seed {report.seed}"
    show(title, ["moment", "victim", "kills", "survived", "orphans", "s lost per kill"], rows)
    lost = (report.seconds - report.loops * report.undisturbed) / max(1, len(report.kills))
    print(
        f"A loop left alone took {report.undisturbed:.1f} s; the others took {report.seconds:.0f} s in total: "
        f"{lost:.1f} s more per kill."
    )


def _figures(kills: list[Kill]) -> list[str]:
    survived, orphans, lost = (sum(getattr(k, name) for k in kills) for name in ("survived", "orphans", "lost"))
    return [f"{len(kills)}", f"{survived}", f"{orphans}", f"{lost / max(1, len(kills)):.1f}"]


if __name__ == "__main__":
    main()
