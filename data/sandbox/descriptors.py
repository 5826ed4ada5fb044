"""Descriptors for a program in the sandbox: its own memory and pipes, which give no access to anything shared."""

import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def sealed(content: bytes) -> Iterator[int]:
    """A descriptor to read the content from; whoever has it cannot change the content."""
    written = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(written, "wb") as file:
        file.write(content)
        file.flush()
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
        read = os.open(f"/proc/self/fd/{written}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield read
    finally:
        os.close(read)


@contextmanager
def sink(thread: ThreadPoolExecutor) -> Iterator[int]:
    """A descriptor for output that nobody reads. After the block, the thread drains it until nobody can write any more.

    It is not /dev/null, which belongs to the machine: a program started by root could change its permissions.
    """
    reading, writing = os.pipe()
    taken = False
    try:
        yield writing
        thread.submit(_drain, reading)
        taken = True
    finally:
        os.close(writing)
        if not taken:
            os.close(reading)


def _drain(descriptor: int) -> None:
    with open(descriptor, "rb", buffering=0) as file:
        while file.read(2**16):
            pass
