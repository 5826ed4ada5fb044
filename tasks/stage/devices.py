"""Which GPUs a stage may use, and locks so that no two stages use one at the same time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tasks.stage.logs import run_logger

LIMIT = "gpu"


def count_gpus() -> int:
    """Number of NVIDIA devices that programs can use here: complete GPUs, and the instances of those split by MIG.

    0 without a driver.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        numbers = range(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    try:
        return sum(_devices(number) for number in numbers)
    finally:
        pynvml.nvmlShutdown()


def _devices(number: int) -> int:
    """Number of CUDA devices of a GPU: in MIG mode, its instances."""
    import pynvml

    try:
        gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
    except pynvml.NVMLError:  # belongs to another container, or is broken
        return 0
    return len(_parts(gpu))


def _parts(gpu: Any) -> list[Any]:
    """The handle of a GPU, or in MIG mode those of its instances."""
    import pynvml

    try:
        split, _ = pynvml.nvmlDeviceGetMigMode(gpu)
    except pynvml.NVMLError:  # without MIG
        split = pynvml.NVML_DEVICE_MIG_DISABLE
    if split == pynvml.NVML_DEVICE_MIG_DISABLE:
        return [gpu]
    found = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        with suppress(pynvml.NVMLError):
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place))
    return found


def visible_gpus() -> list[str]:
    """The GPUs that programs started here use: those of `CUDA_VISIBLE_DEVICES`, or all in the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(count_gpus())]
    return sorted({part.strip() for part in named.split(",")} - {"", "-1"})


def gpu_memory() -> int | None:
    """Bytes of memory of the smallest GPU, or MIG instance, that programs can use here. None without one."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        numbers = list(range(pynvml.nvmlDeviceGetCount()))
        if "CUDA_VISIBLE_DEVICES" in os.environ:
            chosen = [number for number in numbers if str(number) in visible_gpus()]
            numbers = chosen or (numbers if visible_gpus() else [])  # other names may mean any
        found = [size for number in numbers for size in _memory(number)]
        return min(found, default=None)
    finally:
        pynvml.nvmlShutdown()


def _memory(number: int) -> list[int]:
    """Bytes of memory of a GPU, or of each of its instances; empty if it cannot be read."""
    import pynvml

    with suppress(pynvml.NVMLError):
        parts = _parts(pynvml.nvmlDeviceGetHandleByIndex(number))
        return [int(pynvml.nvmlDeviceGetMemoryInfo(part).total) for part in parts]
    return []


@contextmanager
def gpus_held() -> Iterator[None]:
    """Hold every visible GPU while a stage's program runs, waiting for it if needed. Without a GPU, hold nothing.

    On a Prefect server, each GPU takes a slot of the concurrency limit `gpu`, which must exist there (`autodidact up`
    makes it). On the machine itself, each is a file lock, for programs started without a server.

    Raises:
        prefect.concurrency.sync.ConcurrencySlotAcquisitionError: the server has no limit `gpu`.
    """
    gpus = visible_gpus()
    with ExitStack() as held:
        if gpus and os.environ.get("PREFECT_API_URL"):
            from prefect.concurrency.sync import concurrency

            # strict: the limit must exist. A server that is down for a while must not end a stage, however.
            held.enter_context(concurrency(LIMIT, occupy=len(gpus), strict=True, raise_on_lease_renewal_failure=False))
        # Always in the same order, so that two programs never wait for each other.
        for gpu in gpus:
            lock = FileLock(Path(tempfile.gettempdir()) / f"autodidact-gpu-{gpu}.lock", mode=0o666)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                run_logger().info("Waiting for GPU %s, which another run uses.", gpu)
                lock.acquire()
            held.callback(lock.release)
        yield
