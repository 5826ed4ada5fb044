"""Runs a Python program, and the programs it starts, and kills one the n-th time it reaches a named place.

    python crash_driver.py (SCRIPT | -m MODULE) ARGUMENT…

A random time hardly ever falls between two system calls. Here the call itself is watched, from outside the code that
makes it. The orders are in the environment, which all processes of a start share and are found by afterward.
"""

import dataclasses
import functools
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

ORDERS, FLOW = "AUTODIDACT_CRASH", "AUTODIDACT_CRASH_FLOW"
BEFORE, WITHIN, AFTER = "before", "within", "after"
# Places, and the positions at each. Files are written next to their final name and then renamed to it.
PUBLISHING, MANIFEST, IDS, OTHER, ROWS, SHARD, MLFLOW, SQL, TABLES = (
    "publishing a stage",
    "writing a manifest",
    "writing mlflow.json",
    "writing another file",
    "writing rows",
    "writing a shard",
    "an MLflow call",
    "a change in mlflow.db",
    "a step of making mlflow.db",
)
POSITIONS: dict[str, tuple[str, ...]] = dict.fromkeys((MANIFEST, IDS, OTHER, ROWS, SHARD), (BEFORE, WITHIN, AFTER))
POSITIONS |= dict.fromkeys((PUBLISHING, MLFLOW), (BEFORE, AFTER)) | dict.fromkeys((SQL, TABLES), (AFTER,))
STATEMENTS = dict.fromkeys(("INSERT", "UPDATE", "DELETE"), SQL) | dict.fromkeys(("CREATE", "ALTER", "DROP"), TABLES)
MLFLOW_WRITES = ("create_", "delete_", "finalize_", "link_", "log_", "rename_", "set_", "transition_", "update_")
FOR_EVER = 600.0


class Victim(StrEnum):
    """Who is killed, by SIGKILL unless stated otherwise."""

    GROUP = "the flow's process group"
    FLOW = "the flow"
    TERMINATED = "the flow (SIGTERM)"
    INTERRUPTED = "the flow (SIGINT)"
    SUPERVISOR = "a supervisor"
    LEADER = "the stage's program"
    WORKER = "its deepest worker"


SIGNALS = {Victim.TERMINATED: signal.SIGTERM, Victim.INTERRUPTED: signal.SIGINT}
OF_A_PROGRAM = (Victim.SUPERVISOR, Victim.LEADER, Victim.WORKER)


@dataclasses.dataclass(frozen=True)
class Orders:
    """What happens to one start of a flow. Without a place, nothing happens to it from inside."""

    marker: str
    reached: str  # the file where the driver records the call at which it killed
    place: str = ""
    position: str = ""
    call: int = 0
    victim: str = ""
    workers: bool = False  # give every program a worker in its own session, without which it fails

    def environment(self) -> dict[str, str]:
        return {ORDERS: json.dumps(dataclasses.asdict(self))}


def strike(victim: Victim, flow: int) -> bool:
    """Kill the victim. Return False if it is a program's process and the flow runs no program now."""
    if victim is Victim.GROUP:
        os.killpg(flow, signal.SIGKILL)
    elif victim not in OF_A_PROGRAM:
        os.kill(flow, SIGNALS.get(victim, signal.SIGKILL))
    else:
        try:
            process = _find(victim, psutil.Process(flow))
            if process is None:
                return False
            process.kill()
        except psutil.NoSuchProcess:
            return False
    return True


def _find(victim: Victim, flow: psutil.Process) -> psutil.Process | None:
    below = flow.children(recursive=True)
    supervisors = [p for p in below if p.status() != psutil.STATUS_ZOMBIE and _is_supervisor(p)]
    if victim is Victim.SUPERVISOR or not supervisors:
        return random.choice(supervisors) if supervisors else None
    process = next((p for p in supervisors[-1].children() if p not in supervisors), None)
    while victim is Victim.WORKER and process and (children := process.children()):
        process = children[-1]
    return process


def _is_supervisor(process: psutil.Process) -> bool:
    return any(part.endswith("/tasks/stage/supervisor.py") for part in process.cmdline()[:2])


class Driver:
    """Counts how often this process reaches each place, and carries out its orders."""

    def __init__(self, orders: Orders, flow: int) -> None:
        self.orders, self.flow = orders, flow
        self.counts: Counter[str] = Counter()

    def come(self, place: str, position: str, what: str) -> bool:
        """Whether this is the moment to kill, which is recorded first."""
        if (place, position) != (self.orders.place, self.orders.position):
            return False
        self.counts[place] += 1
        if self.counts[place] != self.orders.call:
            return False
        Path(self.orders.reached).write_text(what)
        return True

    def act(self) -> None:
        """Kill, then do nothing: the victim may be another process, and then this one waits for its own end."""
        strike(Victim(self.orders.victim), self.flow)
        time.sleep(FOR_EVER)

    def watch(self, place: str, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*arguments: Any, **options: Any) -> Any:
            if self.come(place, BEFORE, what):
                self.act()
            result = call(*arguments, **options)
            if self.come(place, AFTER, what):
                self.act()
            return result

        return watched

    def watch_files(self) -> None:
        """Watch os.rename, which publishes stages, and os.replace of a `.partial`, which writes files atomically."""
        rename, replace = os.rename, os.replace

        def watched_rename(source: Any, target: Any, **options: Any) -> None:
            ours = str(source).endswith(".attempt")
            (self.watch(PUBLISHING, str(target), rename) if ours else rename)(source, target, **options)

        def watched_replace(source: Any, target: Any, **options: Any) -> None:
            if not str(source).endswith(".partial"):
                replace(source, target, **options)
                return
            place = self.place_of(Path(target).name)
            if self.come(place, WITHIN, str(target)):
                os.truncate(source, os.path.getsize(source) // 2)
                self.act()
            self.watch(place, str(target), replace)(source, target, **options)

        os.rename, os.replace = watched_rename, watched_replace  # type: ignore[assignment]

    def place_of(self, name: str) -> str:
        if name.endswith(".parquet"):
            return ROWS if self.flow == os.getpid() else SHARD
        return {"manifest.json": MANIFEST, "mlflow.json": IDS}.get(name, OTHER)

    def watch_mlflow(self) -> None:
        import mlflow
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        client = mlflow.MlflowClient
        for name in [name for name in dir(client) if name.startswith(MLFLOW_WRITES)]:
            setattr(client, name, self.watch(MLFLOW, name, getattr(client, name)))
        event.listen(Engine, "after_cursor_execute", self.after_statement)
        create = mlflow.create_external_model
        mlflow.create_external_model = self.watch(MLFLOW, create.__name__, create)

    def after_statement(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        place = STATEMENTS.get(statement.split(maxsplit=1)[0])
        if place == SQL and "alembic" in statement:  # MLflow creates its tables by migrations
            place = TABLES
        if place and self.come(place, AFTER, " ".join(statement.split())[:60]):
            self.act()


def run_programs_here_too() -> None:
    """Make the flow start its programs through this driver."""
    from tasks.stage.process import run_child
    from tasks.stage.run import Run

    def driven(command: Sequence[str], *arguments: Any, **options: Any) -> None:
        if command[0] == sys.executable:
            command = [command[0], __file__, *command[1:]]
        run_child(command, *arguments, **options)

    Run.start = staticmethod(driven)


def start_worker() -> None:
    """Start a process in its own session that the program depends on, as torchrun and vLLM do."""
    worker = subprocess.Popen(["sleep", str(FOR_EVER)], start_new_session=True)

    def follow() -> None:
        worker.wait()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def main() -> None:
    orders = Orders(**json.loads(os.environ[ORDERS]))
    in_flow = FLOW not in os.environ
    driver = Driver(orders, int(os.environ.setdefault(FLOW, str(os.getpid()))))
    driver.watch_files()
    if in_flow:
        run_programs_here_too()
        if orders.place in (MLFLOW, SQL, TABLES):
            driver.watch_mlflow()
    elif orders.workers:
        start_worker()
    if sys.argv[1] == "-m":
        module, first, sys.argv = sys.argv[2], os.getcwd(), sys.argv[2:]
        replace_own_folder(first)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        script, first, sys.argv = sys.argv[1], str(Path(sys.argv[1]).parent), sys.argv[1:]
        replace_own_folder(first)
        runpy.run_path(script, run_name="__main__")


def replace_own_folder(first: str) -> None:
    """Import from where the program would: with PYTHONSAFEPATH neither from its folder nor from this one's."""
    if not sys.flags.safe_path:
        sys.path[0] = first


if __name__ == "__main__":
    main()
