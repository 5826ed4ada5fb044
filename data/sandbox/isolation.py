"""How a program is shut in: by bubblewrap in namespaces of its own, by resource limits, by cgroups where there are any.

Inside there is Python and nothing else of this machine: no network, no process but its own, no file but the system's
libraries, read-only, and a temporary folder of fixed size. The user it runs as has no rights, and cannot make further
namespaces. Whatever it starts dies with it.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

import psutil

PROGRAMS = Path(__file__).parent
INSIDE = "/sandbox"
CGROUPS = Path("/sys/fs/cgroup")
NOBODY = 65534
PYTHON = f"/python/bin/{Path(sys.executable).resolve().name}"  # inside


class IsolationError(RuntimeError):
    """Programs cannot be shut in here as they have to be."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: wall-clock time; half as much again of processor time.
        memory: bytes of address space of a process, and of all of them together where a cgroup can hold them.
        processes: processes and threads together, where a cgroup or a user of its own can hold them.
        disk: bytes of the temporary folder.
        output: bytes of standard output that are read.
    """

    seconds: float = 10.0
    memory: int = 512 * 2**20
    processes: int = 32
    disk: int = 32 * 2**20
    output: int = 2**20


@dataclass(frozen=True)
class Isolation:
    """What holds here. `level` is recorded with every verdict."""

    bubblewrap: str
    processes: bool
    memory: bool

    @property
    def level(self) -> str:
        held = [name for name, holds in (("pids", self.processes), ("memory", self.memory)) if holds]
        return "+".join(["bubblewrap", *held])


@cache
def isolation() -> Isolation:
    """What holds on this machine, found out by trying.

    Raises:
        IsolationError: bubblewrap is not installed, or does not work; with what to do.
    """
    found = shutil.which("bwrap")
    if found is None:
        raise IsolationError(
            "Programs are only run shut in by bubblewrap, which is not installed. Install it, as with "
            "`apt-get install bubblewrap`, on every machine that scores programs."
        )
    with _cgroup(Limits()) as groups:
        held = {controller for controller in ("pids", "memory") for path in groups if f"/{controller}/" in str(path)}
    here = Isolation(found, "pids" in held, "memory" in held)
    command = [*_bubblewrap(here, Limits()), PYTHON, "-I", "-S", "-c", "pass"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise IsolationError(
            f"bubblewrap does not work here: {tried.stderr.strip()}. It needs user namespaces: see to "
            f"kernel.unprivileged_userns_clone, to AppArmor, and in a container to its seccomp profile."
        )
    return here


@contextmanager
def started(
    program: str, limits: Limits, channels: Sequence[int], stdin: IO[bytes] | int, stdout: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this folder, running shut in; it and all that it started are gone when the block ends.

    Args:
        channels: open descriptors that it gets; it is told their numbers.
    """
    told = [json.dumps(_rlimits(limits)), *map(str, channels)]
    with _cgroup(limits) as groups:
        # The shell joins the cgroups, and then becomes bubblewrap.
        join = "".join(f"echo $$ > {group}/cgroup.procs && " for group in groups)
        shut_in = [*_bubblewrap(isolation(), limits), PYTHON, "-I", "-S", "-B", f"{INSIDE}/{program}", *told]
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{join}exec "$@"', "sh", *shut_in],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(channels),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill process 1 inside, with which all others inside die. Bubblewrap reaps it and ends."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for inner in psutil.Process(process.pid).children():
            inner.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _bubblewrap(here: Isolation, limits: Limits) -> list[str]:
    system = [part for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64") for part in _shown(Path(path))]
    return [
        *(here.bubblewrap, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--clearenv", "--setenv", "HOME", "/tmp"),
        *("--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox"),
        *system,
        *("--ro-bind", str(Path(sys.base_prefix).resolve()), "/python"),
        *("--ro-bind", str(PROGRAMS), INSIDE),
        *("--size", str(limits.disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),
    ]


def _shown(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", os.readlink(path), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.is_dir() else []


def _rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": int(limits.seconds * 1.5) + 1,
        "RLIMIT_FSIZE": limits.disk,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }


@contextmanager
def _cgroup(limits: Limits) -> Iterator[list[Path]]:
    """Cgroups that hold processes and memory of one program together, where this process may make them."""
    made: list[Path] = []
    held: list[Path] = []
    name = f"autodidact-{uuid.uuid4().hex[:12]}"
    wanted = {
        "pids": {"pids.max": limits.processes + 4},  # bubblewrap's own
        "memory": {"memory.limit_in_bytes": limits.memory},
    }
    try:
        for controller, settings in wanted.items():
            group = _own_group(controller) / name
            with contextlib.suppress(OSError):
                group.mkdir()
                made.append(group)
                for setting, value in settings.items():
                    (group / setting).write_text(str(value))
                held.append(group)
        yield held
    finally:
        for group in made:
            _remove(group)


def _own_group(controller: str) -> Path:
    """The cgroup of this process, version 1."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return CGROUPS / controller / path.lstrip("/")
    return CGROUPS / "absent"


def _remove(group: Path) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        # What is left in it was killed with process 1 of its namespace, and may still be on its way out.
        with contextlib.suppress(OSError):
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
