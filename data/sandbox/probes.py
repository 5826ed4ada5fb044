"""Whether what should hold a program does hold it here: tried once, with a program that means to get out."""

import tempfile
from functools import cache

from data.sandbox.isolation import Isolation, IsolationError, Limits, isolation
from data.sandbox.judging import judge_by_tests
from data.sandbox.values import PASSED

LIMITS = Limits(seconds=30.0, memory=256 * 2**20, disk=2**20)  # the time is for a busy machine
# Each returns whether it got out, or how far.
ATTACKS = """
import ctypes, os, signal, socket, subprocess, sys

def finds(file):
    return os.path.exists(file)

def writes(folder):
    try:
        open(os.path.join(folder, "written"), "w").close()
        return True
    except OSError:
        return False

def sees_processes():
    return len([name for name in os.listdir("/proc") if name.isdigit()]) > 3 if os.path.isdir("/proc") else False

def has_network():
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("192.0.2.1", 9))
            return True
    except OSError:
        return False

def has_rights():
    return os.getuid() == 0 or ctypes.CDLL(None).unshare(0x10000000) == 0

def signals():
    try:
        os.kill(os.getppid() or -1, 0)
        return os.getppid() > 0
    except OSError:
        return False

def fills(size):
    try:
        with open("filled", "wb") as file:
            for _ in range(size >> 16):
                file.write(bytes(1 << 16))
        return True
    except OSError:
        return False
    finally:
        if os.path.exists("filled"):
            os.truncate("filled", 0)

def takes(size):
    try:
        return bool(bytearray(size))
    except MemoryError:
        return False

def forks(most):
    made = []
    try:
        while len(made) < most:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            made.append(pid)
    except OSError:
        pass
    for pid in made:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(made)
"""


@cache
def contained() -> Isolation:
    """What holds here, after a hostile program found that it does.

    Raises:
        IsolationError: programs cannot be shut in as they have to be, or this one got out; with how.
    """
    here = isolation()
    with tempfile.TemporaryDirectory() as outside:
        attacks = {
            f"it allocates {2 * LIMITS.memory:,} bytes": f"takes({2 * LIMITS.memory})",
            f"it writes a file of {2 * LIMITS.disk:,} bytes": f"fills({2 * LIMITS.disk})",
        }
        if here.bubblewrap:
            attacks |= {
                "it finds files of this machine": f"finds({outside!r})",
                "it writes outside its folder": f"writes({outside!r}) or writes('/') or writes('/sandbox')",
                "it sees other processes": "sees_processes()",
                "it has a network": "has_network()",
                "it has rights of root, or can get some": "has_rights()",
                "it can signal its parent": "signals()",
            }
        if here.pids or here.users:
            attacks[f"it starts {2 * LIMITS.processes} processes"] = (
                f"forks({2 * LIMITS.processes}) == {2 * LIMITS.processes}"
            )
        tests = "".join(f"assert not ({attack}), {what!r}\n" for what, attack in attacks.items())
        judged = judge_by_tests(ATTACKS, "", tests, [], LIMITS)
    if judged.outcome != PASSED:
        raise IsolationError(
            f"Programs are not held here as the level {here.level} promises. One that tried to get out came to: "
            f"{judged.why}. Run `autodidact` outside of a container that hides this, or mend bubblewrap."
        )
    return here
