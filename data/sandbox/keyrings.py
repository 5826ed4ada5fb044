"""The kernel's keyrings, where a login keeps its keys: a program must not have access to any of them.

A session keyring is inherited by child processes. It belongs to a thread, so one thread can replace it by a new one.
"""

import ctypes
import errno
import os
import platform

# add_key, request_key, keyctl. On other machines keyrings are left alone.
CALLS = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}
_JOIN_SESSION_KEYRING = 1
SESSION_KEYRING = -3
_ABSENT = (errno.ENOSYS, errno.EPERM)  # the kernel has none; a container denies them to its processes

_libc = ctypes.CDLL(None, use_errno=True)


def join_fresh() -> bool:
    """Give this thread, and what it starts from now on, a new session keyring. False: there are no keyrings here.

    Raises:
        OSError: there are keyrings, but no new one can be created, for example because this user has too many.
    """
    return _call(2, ctypes.c_long(_JOIN_SESSION_KEYRING), None) is not None


def put_key(name: str) -> bool:
    """Put a key into this thread's session keyring. False: there are no keyrings here.

    Raises:
        OSError: there are keyrings, but the key cannot be added.
    """
    return _call(0, b"user", name.encode(), b"1", ctypes.c_size_t(1), ctypes.c_long(SESSION_KEYRING)) is not None


def _call(which: int, *arguments: object) -> int | None:
    if platform.machine() not in CALLS:
        return None
    number: int = _libc.syscall(ctypes.c_long(CALLS[platform.machine()][which]), *arguments)
    if number >= 0:
        return number
    failed = ctypes.get_errno()
    if failed in _ABSENT:
        return None
    raise OSError(failed, f"a keyring: {os.strerror(failed)}")
