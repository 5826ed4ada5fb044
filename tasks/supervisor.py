"""Runs one command so that nothing of it outlives whoever asked for it. A program of its own: no imports of ours.

Usage: python supervisor.py LOCK_FILE GRACE_SECONDS COMMAND…

Standard input is the lifeline: end of file on it means that the caller is gone or wants an end, and the command is
terminated, then killed. As a child subreaper the supervisor adopts every descendant whose parent died, also those
in sessions of their own (torchrun's and vLLM's workers), and kills all that is left when the command ends. It holds
LOCK_FILE as long as anything runs, so that a restarted caller can wait until the old attempt is really over.
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


def main() -> int:
    lock_file, grace, command = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Ctrl-C reaches the caller, which then closes the lifeline.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    ended = os.pidfd_open(child.pid)
    ready, _, _ = select.select([ended, sys.stdin], [], [])
    end_all(grace if ended not in ready else 0.0)
    code = child.wait()
    return code if code >= 0 else 128 - code


def end_all(grace: float) -> None:
    """Terminate every descendant, and kill what is left after `grace` seconds, until none is left."""
    first = psutil.Process().children(recursive=True)
    if grace:
        for process in first:
            _signal(process, signal.SIGTERM)
        psutil.wait_procs(first, timeout=grace)
    # A dying parent can leave a child that was not listed yet: the subreaper finds it in the next round.
    while remaining := [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]:
        for process in remaining:
            _signal(process, signal.SIGKILL)
        psutil.wait_procs(remaining, timeout=1)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


if __name__ == "__main__":
    sys.exit(main())
