"""Cgroups, version 1 or 2, that limit the processes and the memory of one program together, if they can be created.

A per-process limit is not enough if a program may start others: only a cgroup bounds their sum.

A cgroup stays when the process that created it is killed. So each is locked by its creator for as long as that lives,
and the next process removes those that nobody holds.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("pids", "memory")
PREFIX = "autodidact-"


@contextmanager
def limited(processes: int, memory: int) -> Iterator[list[Path]]:
    """Cgroups for one program to join; whatever is left in them at the end is killed.

    Args:
        processes: maximum number of processes and threads.
        memory: maximum number of bytes, including swap.
    """
    with _made(_groups(controlled(), processes, memory)) as groups:
        yield groups


def remove_abandoned() -> None:
    """Remove the cgroups of processes that were killed, with whatever still runs in them."""
    for parent in {parent for controller in CONTROLLERS if (parent := _parent(controller))}:
        with contextlib.suppress(OSError), _locked(parent, fcntl.LOCK_EX):
            for group in parent.glob(f"{PREFIX}*"):
                with contextlib.suppress(OSError), _locked(group, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    _remove(group)


@cache
def controlled() -> frozenset[str]:
    """What can be limited here, "pids" and "memory" or less: determined by joining a cgroup with that limit."""
    remove_abandoned()
    held = set()
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError), _made(_groups({controller}, 100, 2**30)) as groups:
            joined = subprocess.run(["/bin/sh", "-c", join(groups, ":")], capture_output=True, check=False)
            if groups and joined.returncode == 0:
                held.add(controller)
    return frozenset(held)


def join(groups: list[Path], then: str) -> str:
    """A shell command that joins cgroups and then runs another command."""
    return " && ".join([*(f"echo $$ > {group}/cgroup.procs" for group in groups), then])


def _groups(controllers: frozenset[str] | set[str], processes: int, memory: int) -> dict[Path, dict[str, int]]:
    """New cgroups with these controllers, with their settings."""
    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    groups: dict[Path, dict[str, int]] = {}
    for controller in sorted(controllers):
        if (parent := _parent(controller)) is None:
            continue
        bounds = {"pids.max": processes}
        if controller == "memory":
            # Version 1 has no swap file if the kernel does not account for swap.
            unified = (parent / "cgroup.controllers").exists()
            bounds = {"memory.max": memory, "memory.swap.max": 0} if unified else {"memory.limit_in_bytes": memory}
        groups.setdefault(parent / name, {}).update(bounds)
    return groups


def _parent(controller: str) -> Path | None:
    """The cgroup in which one with this controller can be created: this process's own, or in version 2 its parent.

    In version 2 a cgroup that contains processes does not pass controllers on.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return CGROUPS / controller / path.lstrip("/")
        if number == "0":
            own = CGROUPS / path.lstrip("/")
            for group in (own, own.parent):
                with contextlib.suppress(OSError):
                    passed_on = (group / "cgroup.subtree_control").read_text().split()
                    if group.is_relative_to(CGROUPS) and controller in passed_on:
                        return group
    return None


@contextmanager
def _made(groups: Mapping[Path, Mapping[str, int]]) -> Iterator[list[Path]]:
    with ExitStack() as stack:
        for group, settings in groups.items():
            stack.callback(_remove, group)
            with _locked(group.parent, fcntl.LOCK_SH):  # nobody finds it before its own lock
                group.mkdir()
                stack.enter_context(_locked(group, fcntl.LOCK_SH))
            _write(group, settings)
        yield list(groups)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def _write(group: Path, settings: Mapping[str, int]) -> None:
    for setting, value in settings.items():
        if setting != "memory.swap.max" or (group / setting).exists():
            (group / setting).write_text(str(value))


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while group.exists() and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        # Remaining processes are killed, and may take a moment to exit.
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
