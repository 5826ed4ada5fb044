"""How a program is sandboxed: by bubblewrap in namespaces of its own, by a filter of system calls, limits, and cgroups.

Inside there is Python's standard library and nothing else of this machine: no network, no process but its own, no key,
no file but the system's libraries, read-only, and a temporary folder of fixed size. The user it runs as has no rights,
and cannot make further namespaces. Its descriptors are pipes and sealed memory, nothing that others have as well.
Whatever it starts dies with it. The level `limits` does without bubblewrap, and shuts in very little.
"""

import compileall
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout

from data.errors import AutodidactError
from data.sandbox import cgroups, descriptors, files, keyrings, seccomp

Level = Literal["bubblewrap", "limits"]

PROGRAMS = Path(__file__).parent
PREFIX = Path(sys.base_prefix).resolve()
INSIDE = "/sandbox"
NOBODY = 65534
FIRST_USER = 900_000_000  # beyond what people, services and containers are given
PYTHON = f"bin/{Path(sys.executable).resolve().name}"


class IsolationError(AutodidactError):
    """Programs cannot be sandboxed here as they have to be."""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        seconds: wall-clock time; half as much again of processor time.
        memory: bytes of address space of a process, and of all of them together where a cgroup can hold them.
        processes: processes and threads together, where a cgroup or a user of its own can hold them.
        disk: bytes of the temporary folder; without bubblewrap, of a file.
        output: bytes of standard output that are read.
    """

    seconds: float = 10.0
    memory: int = 512 * 2**20
    processes: int = 32
    disk: int = 32 * 2**20
    output: int = 2**20


@dataclass(frozen=True)
class Isolation:
    """What holds here. `level` is recorded with every verdict.

    Attributes:
        bubblewrap: its path; None: programs are not sandboxed, only limited.
        seccomp: whether a filter leaves them the system calls that Python needs, and no others.
        users: whether each program that runs at a time has a user of its own. That takes root.
        pids: whether a cgroup limits a program's processes.
        memory: whether a cgroup limits their memory together.
    """

    bubblewrap: str | None
    seccomp: bool
    users: bool
    pids: bool
    memory: bool

    @property
    def level(self) -> str:
        held = [name for name in ("seccomp", "users", "pids", "memory") if getattr(self, name)]
        return "+".join(["bubblewrap" if self.bubblewrap else "limits", *held])


_required: Level = "bubblewrap"


def require(level: Level) -> None:
    """Set the lowest level at which programs are run in this process. What is better is used where it works."""
    global _required
    _required = level
    isolation.cache_clear()


@cache
def isolation() -> Isolation:
    """What holds on this machine, found out by trying.

    Raises:
        IsolationError: bubblewrap is required and not installed, or does not work; with what to do.
    """
    # Each verdict starts programs of this folder, which cannot keep what they compile.
    compileall.compile_dir(PROGRAMS, maxlevels=0, quiet=2)
    bubblewrap = shutil.which("bwrap")
    failure = "Programs run only in a bubblewrap sandbox, and bubblewrap is not installed."
    advice = "Install it, as with `apt-get install bubblewrap`, on every machine that scores programs."
    if bubblewrap:
        here, said = _first_that_works(bubblewrap)
        if here:
            return here
        failure = f"bubblewrap does not work here: {said}."
        advice = (
            "It needs user namespaces: see to kernel.unprivileged_userns_clone, to AppArmor, and in a container to its "
            "seccomp profile. As root it needs cgroups that it can make, or a Python that other users can read."
        )
    if _required == "bubblewrap":
        raise IsolationError(failure, what_next=advice)
    here, said = _first_that_works(None)
    if here is None:
        raise IsolationError(
            failure,
            "Without it nothing but its user stops a program, and this process is root and cannot give it another "
            f"one: {said}.",
            f"{advice} Or start as a user without rights.",
        )
    return here


def _first_that_works(bubblewrap: str | None) -> tuple[Isolation | None, str]:
    """The best of what works, and what was said by what does not."""
    held, said = cgroups.controlled(), "setpriv is not installed"
    root = os.geteuid() == 0
    for users in (True, False):
        if users and not (root and shutil.which("setpriv")):
            continue
        if root and not users and not (bubblewrap and "pids" in held):
            # No limit of processes holds for root: one fork bomb would stop the whole machine.
            continue
        for filtered in (True, False):
            here = Isolation(bubblewrap, filtered, users, "pids" in held, "memory" in held)
            try:
                _try(here)
            except (OSError, IsolationError) as error:
                said = str(error)
                continue
            if not filtered:
                logging.getLogger(__name__).warning("Programs run without a filter of system calls: %s.", said)
            return here, ""
    return None, said


def _try(here: Isolation) -> None:
    """Run an empty program.

    Raises:
        IsolationError, OSError: it does not run; with what was said.
    """
    if here.seccomp:
        seccomp.program()
    with _user(here) as user, ThreadPoolExecutor(1) as thread:
        process = thread.submit(_launch, here, Limits(), user, ["-c", "pass"], stderr=subprocess.PIPE).result()
        said = process.communicate()[1].decode(errors="replace").strip()
    if process.returncode != 0:
        raise OSError(said or f"exit code {process.returncode}")


@contextmanager
def started(
    program: str, limits: Limits, channels: Sequence[int], stdin: bytes = b"", stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program of this folder, running in the sandbox; it and all that it started are gone when the block ends.

    Args:
        channels: open descriptors that it gets; it is told their numbers.
        stdin: what it reads from standard input.
        stdout: as for subprocess.Popen; None: nobody reads what it prints.
    """
    here = isolation()
    with ExitStack() as stack:
        groups = stack.enter_context(cgroups.limited(limits.processes + 4, limits.memory))  # bubblewrap's own four
        user = stack.enter_context(_user(here))
        folder = None if here.bubblewrap else stack.enter_context(tempfile.TemporaryDirectory())
        if folder and user is not None:
            os.chown(folder, user, user)
        # It lives as long as the program, which would die with it.
        thread = stack.enter_context(ThreadPoolExecutor(1))
        unread = descriptors.sink(thread) if here.bubblewrap else nullcontext(subprocess.DEVNULL)
        with descriptors.sealed(stdin) as given, unread as sink, descriptors.sealed(stdin) as file:
            inside = PROGRAMS if here.bubblewrap is None else Path(INSIDE)
            process = thread.submit(
                _launch,
                here,
                limits,
                user,
                [str(inside / program), json.dumps(_rlimits(limits)), *map(str, channels)],
                groups,
                channels,
                file,
                stdin=given,
                stdout=sink if stdout is None else stdout,
                stderr=sink,
                cwd=folder,
                env={"HOME": folder, "TMPDIR": folder, "PATH": os.defpath} if folder else None,
            ).result()
            stack.callback(_end, process, here, user)
        yield process


def _launch(
    here: Isolation,
    limits: Limits,
    user: int | None,
    arguments: Sequence[str],
    groups: list[Path] | None = None,
    channels: Sequence[int] = (),
    file: int | None = None,
    **popen: Any,
) -> subprocess.Popen[bytes]:
    """Start Python in the sandbox, from a thread of its own: what is set here is the thread's, and inherited.

    Raises:
        IsolationError: the kernel gives it no keyring, or takes no filter of system calls.
    """
    try:
        keyrings.join_fresh()
        if here.seccomp and not here.bubblewrap:
            seccomp.restrict_thread()
    except OSError as error:
        raise IsolationError(
            f"A program cannot be sandboxed: {error}.", what_next="Fix that, and run the same command again."
        ) from None
    with ExitStack() as stack:
        described = None
        if here.seccomp and here.bubblewrap:
            described = stack.enter_context(descriptors.sealed(seccomp.program()))
        empty = stack.enter_context(descriptors.sealed(b"")) if here.bubblewrap else None
        return subprocess.Popen(
            # The shell joins the cgroups, and then becomes the program.
            [
                *("/bin/sh", "-c", cgroups.join(groups or [], 'exec "$@"'), "sh"),
                *_command(here, limits, user, described, [] if empty is None else [(empty, "null"), (file, "stdin")]),
                *arguments,
            ],
            pass_fds=[d for d in (*channels, described, empty, file) if d is not None],
            start_new_session=True,
            **popen,
        )


def _end(process: subprocess.Popen[bytes], here: Isolation, user: int | None) -> None:
    """Kill a program and all that it started."""
    if here.bubblewrap:
        # With process 1 inside all others die. Bubblewrap reaps it and ends.
        with contextlib.suppress(psutil.NoSuchProcess):
            for inner in psutil.Process(process.pid).children():
                inner.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if user is not None and not here.bubblewrap:
        while left := [p for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real == user]:
            for process_left in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process_left.kill()
            psutil.wait_procs(left, timeout=0.1)


@contextmanager
def _user(here: Isolation) -> Iterator[int | None]:
    """A user that no other program has at the same time, so that a limit of processes holds for it alone."""
    if not here.users:
        yield None
        return
    folder = Path(tempfile.gettempdir()) / "autodidact-users"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.geteuid():
        raise IsolationError(f"{folder} is somebody else's, who could put links there.", what_next="Remove it.")
    for slot in count():
        lock = FileLock(folder / str(slot))
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            break
    try:
        yield FIRST_USER + slot
    finally:
        lock.release()


def _command(
    here: Isolation,
    limits: Limits,
    user: int | None,
    described: int | None,
    devices: Sequence[tuple[int | None, str]] = (),
) -> list[str]:
    """The command of sandboxed Python, as that user if one is given, with the filter that a descriptor holds.

    Args:
        devices: descriptors of what files in /dev hold, and their names. They are files because a device is the
            machine's: whoever is root outside could change its permissions from inside.
    """
    change = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    python = ["-I", "-S", "-B"]
    if here.bubblewrap is None:
        return [*change, str(PREFIX / PYTHON), *python]
    return [
        *change,
        *(here.bubblewrap, "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *([] if described is None else ["--seccomp", str(described)]),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--clearenv", "--setenv", "HOME", "/tmp"),
        *("--setenv", "LD_LIBRARY_PATH", "/python/lib"),  # libpython may be there
        *("--die-with-parent", "--new-session", "--as-pid-1", "--hostname", "sandbox"),
        *files.system(),
        *files.python(PREFIX, PYTHON),
        *("--ro-bind", str(PROGRAMS), INSIDE),
        *("--size", str(limits.disk), "--tmpfs", "/dev", "--perms", "1777", "--dir", "/dev/shm"),  # for semaphores
        *(part for held, name in devices if held is not None for part in _device(held, name)),
        *("--size", str(limits.disk), "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/tmp"),
        *(f"/python/{PYTHON}", *python),
    ]


def _device(held: int, name: str) -> list[str]:
    return ["--perms", "0666", "--file", str(held), f"/dev/{name}"]


def _rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": int(limits.seconds * 1.5) + 1,
        "RLIMIT_FSIZE": limits.disk,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }
