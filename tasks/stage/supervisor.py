"""Runs one command so that none of its processes outlives the caller. A standalone program: imports nothing of ours.

Usage: python supervisor.py LOCK_FILE GRACE_SECONDS COMMAND…

Standard input is the lifeline: end of file means that the caller is gone or wants the command to end, and the command
is terminated, then killed. As a child subreaper, the supervisor adopts every descendant whose parent died, including
those in their own sessions (torchrun's and vLLM's workers), and kills all that remain when the command ends. It holds
LOCK_FILE as long as any of them runs, so that a restarted caller can wait until the old attempt is really over.

It may be killed itself, so it is two processes. The inner one runs the command. The outer one adopts the processes
that the inner one would leave behind, and holds its lifeline. Only if both are killed at once can a process remain.
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys

import psutil

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    lock_file, grace, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    # Ctrl-C reaches the caller, which then closes the lifeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    adopt_orphans()
    lifeline, held = os.pipe()
    inner = os.fork()
    if inner == 0:
        os.close(held)
        os.setsid()  # a signal to the outer process's group must not reach both
        return run(command, lifeline, grace)
    os.close(lifeline)
    return guard(inner, held)


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose parent dies. A fork does not inherit this."""
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(command: list[str], lifeline: int, grace: float) -> int:
    """The inner process: run the command until it or the lifeline ends. Returns the exit code."""
    adopt_orphans()
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    ended = os.pidfd_open(child.pid)
    ready, _, _ = select.select([ended, lifeline], [], [])
    end_all(grace if ended not in ready else 0.0)
    code = child.wait()
    return code if code >= 0 else 128 - code


def guard(inner: int, held: int) -> int:
    """The outer process: pass on the end of its lifeline, wait for the inner one, kill any processes it left."""
    ended = os.pidfd_open(inner)
    select.select([ended, sys.stdin], [], [])
    os.close(held)
    select.select([ended], [], [])
    end_all(0.0)
    code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    return code if code >= 0 else 128 - code


def end_all(grace: float) -> None:
    """Terminate every descendant, and kill those left after `grace` seconds, until none remains."""
    first = psutil.Process().children(recursive=True)
    if grace:
        for process in first:
            _signal(process, signal.SIGTERM)
        psutil.wait_procs(first, timeout=grace)
    # A dying parent can leave a child that was not listed yet; the subreaper finds it in the next round.
    while remaining := [p for p in psutil.Process().children(recursive=True) if _runs(p)]:
        for process in remaining:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(remaining, timeout=1)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main())
