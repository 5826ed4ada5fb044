"""How a program is sandboxed: bubblewrap with its own namespaces, a system call filter, limits, and cgroups.

Inside there is Python's standard library and nothing else of this machine: no network, no other processes, no keys, no
files except the system's libraries, read-only, and a temporary folder of fixed size. The program's user has no
privileges and cannot create further namespaces. Its descriptors are pipes and sealed memory, shared with nobody.
Whatever it starts dies with it. The level `limits` works without bubblewrap and contains very little.
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
FIRST_USER = 900_000_000  # beyond the ids of people, services and containers
PYTHON = f"bin/{Path(sys.executable).resolve().name}"


class IsolationError(AutodidactError):
    """Programs cannot be sandboxed here as required."""


@dataclass(frozen=True)
class Limits:
    """Limits of one program.

    Attributes:
        seconds: wall-clock time; the limit of processor time is half as much again.
        memory: bytes of address space per process, and of all its processes together if a cgroup can limit them.
        processes: processes and threads together, if a cgroup or a separate user can limit them.
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
    """The protections that work here. `level` is recorded with every verdict.

    Attributes:
        bubblewrap: its path; None: programs are only limited, not sandboxed.
        seccomp: whether a filter allows only the system calls that Python needs.
        users: whether each program running at a time has a separate user. That requires root.
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
    """Set the lowest level at which programs may run in this process. Better protections are used if they work."""
    global _required
    _required = level
    isolation.cache_clear()


@cache
def isolation() -> Isolation:
    """The protections that work on this machine, determined by trying.

    Raises:
        IsolationError: bubblewrap is required but not installed or not working; the message says what to do.
    """
    # Each verdict starts programs of this folder, which cannot cache their bytecode.
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
            "It needs user namespaces: check kernel.unprivileged_userns_clone, AppArmor, and in a container its "
            "seccomp profile. As root it needs permission to create cgroups, or a Python that other users can read."
        )
    if _required == "bubblewrap":
        raise IsolationError(failure, what_next=advice)
    here, said = _first_that_works(None)
    if here is None:
        raise IsolationError(
            failure,
            "Without bubblewrap only its user restricts a program, and this process is root and cannot give it another "
            f"one: {said}.",
            f"{advice} Or start as an unprivileged user.",
        )
    return here


def _first_that_works(bubblewrap: str | None) -> tuple[Isolation | None, str]:
    """The best level that works, and the error of the last one that does not."""
    held, said = cgroups.controlled(), "setpriv is not installed"
    root = os.geteuid() == 0
    for users in (True, False):
        if users and not (root and shutil.which("setpriv")):
            continue
        if root and not users and not (bubblewrap and "pids" in held):
            # Process limits do not apply to root: one fork bomb would stop the entire machine.
            continue
        for filtered in (True, False):
            here = Isolation(bubblewrap, filtered, users, "pids" in held, "memory" in held)
            try:
                _try(here)
            except (OSError, IsolationError) as error:
                said = str(error)
                continue
            if not filtered:
                logging.getLogger(__name__).warning("Programs run without a system call filter: %s.", said)
            return here, ""
    return None, said


def _try(here: Isolation) -> None:
    """Run an empty program.

    Raises:
        IsolationError, OSError: it does not run; with its error output.
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
    """Run a program of this folder in the sandbox; the program and all its children are gone when the block ends.

    Args:
        channels: open descriptors passed to the program, which gets their numbers as arguments.
        stdin: the content of its standard input.
        stdout: as for subprocess.Popen; None: nobody reads the output.
    """
    here = isolation()
    with ExitStack() as stack:
        groups = stack.enter_context(cgroups.limited(limits.processes + 4, limits.memory))  # bubblewrap's own four
        user = stack.enter_context(_user(here))
        folder = None if here.bubblewrap else stack.enter_context(tempfile.TemporaryDirectory())
        if folder and user is not None:
            os.chown(folder, user, user)
        # This thread must outlive the program, which dies with it.
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
    """Start Python in the sandbox, from a separate thread: what is set here applies to the thread and its children.

    Raises:
        IsolationError: the kernel provides no keyring, or rejects the system call filter.
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
            # The shell joins the cgroups and then becomes the program.
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
    """Kill a program and all its children."""
    if here.bubblewrap:
        # All others die with process 1 inside. Bubblewrap reaps it and exits.
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
    """A user that no other program has at the same time, so its process limit applies to this program alone."""
    if not here.users:
        yield None
        return
    folder = Path(tempfile.gettempdir()) / "autodidact-users"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.geteuid():
        raise IsolationError(f"{folder} belongs to another user, who could put links there.", what_next="Remove it.")
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
    """The command of sandboxed Python, as `user` if given, with the filter that a descriptor holds.

    Args:
        devices: descriptors with the content of files in /dev, and the files' names. They are files because a device
            belongs to the machine: a program started by root could change its permissions.
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
        *("--symlink", "/dev/stdin", "/dev/fd/0"),
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
