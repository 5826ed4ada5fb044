"""Check that the protections hold on this machine: tried once, with a program that attempts to get out."""

import platform
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from data.sandbox import keyrings
from data.sandbox.isolation import Isolation, IsolationError, Limits, isolation
from data.sandbox.judging import Judged, judge_by_tests
from data.sandbox.values import PASSED

LIMITS = Limits(seconds=30.0, memory=256 * 2**20, disk=2**20)  # generous, for a busy machine
IO_URING_SETUP = 425
USERFAULTFD = {"x86_64": 323, "aarch64": 282}
# Each returns whether it got out, or how far it got.
ATTACKS = """
import ctypes, errno, fcntl, glob, os, signal, socket, stat, subprocess, sys

kernel = ctypes.CDLL(None, use_errno=True)

def finds_key(request_key, keyctl, name):
    search, session = ctypes.c_long(10), ctypes.c_long(-3)
    found = kernel.syscall(ctypes.c_long(request_key), b"user", name, None, ctypes.c_long(0))
    return found > 0 or kernel.syscall(ctypes.c_long(keyctl), search, session, b"user", name, ctypes.c_long(0)) > 0

def calls(number):
    ctypes.set_errno(0)
    kernel.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    return ctypes.get_errno() != errno.ENOSYS

def opens_socket(family):
    try:
        socket.socket(family, socket.SOCK_STREAM).close()
        return True
    except OSError:
        return False

def has_shared_descriptors():
    for descriptor in range(64):
        try:
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        except OSError as error:
            if error.errno != errno.EBADF:
                return True
    return False

def finds_packages():
    return any(glob.glob(f"/{at}/python*/*-packages/*") for at in ("python/lib*", "usr/lib*", "lib*"))

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
    """The protections that hold here, confirmed by a hostile program.

    Raises:
        IsolationError: programs cannot be sandboxed as required, or this program got out; the message says how.
    """
    here = isolation()
    key = f"autodidact-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as outside, ThreadPoolExecutor(1) as thread:
        attacks = {
            f"it allocates {2 * LIMITS.memory:,} bytes": f"takes({2 * LIMITS.memory})",
            f"it writes a file of {2 * LIMITS.disk:,} bytes": f"fills({2 * LIMITS.disk})",
        }
        if numbers := keyrings.CALLS.get(platform.machine()):
            attacks["it finds a key of its parent"] = f"finds_key({numbers[1]}, {numbers[2]}, b{key!r})"
        if here.seccomp:
            attacks |= {
                "it can call io_uring": f"calls({IO_URING_SETUP})",
                "it can call userfaultfd": f"calls({USERFAULTFD[platform.machine()]})",
                "it can add keys": f"calls({keyrings.CALLS[platform.machine()][0]})",
                "it can reach virtual machines": "opens_socket(socket.AF_VSOCK)",
            }
        if here.bubblewrap:
            attacks |= {
                "it finds files of this machine": f"finds({outside!r})",
                "it writes outside its folder": f"writes({outside!r}) or writes('/') or writes('/sandbox')",
                "it sees other processes": "sees_processes()",
                "it has a network": "has_network()",
                "it has root privileges or can get them": "has_rights()",
                "it can signal its parent": "signals()",
                "it shares descriptors with others": "has_shared_descriptors()",
                "it finds installed packages": "finds_packages()",
            }
        if here.pids or here.users:
            attacks[f"it starts {2 * LIMITS.processes} processes"] = (
                f"forks({2 * LIMITS.processes}) == {2 * LIMITS.processes}"
            )
        tests = "".join(f"assert not ({attack}), {what!r}\n" for what, attack in attacks.items())
        judged = thread.submit(_judge, tests, key).result()
    if judged.outcome != PASSED:
        raise IsolationError(
            f"Programs are not contained here as the level {here.level} promises.",
            f"A program that tried to get out reported: {judged.why}.",
            "Run `autodidact` outside of a container that prevents this, or fix bubblewrap.",
        )
    return here


def _judge(tests: str, key: str) -> Judged:
    """Run the attacks with a key in this thread's session keyring, which may differ from the process's."""
    if keyrings.join_fresh():
        keyrings.put_key(key)
    return judge_by_tests(ATTACKS, "", tests, [], LIMITS)
