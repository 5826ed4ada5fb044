"""Which GPUs a stage may use, and locks so that no two stages use one at the same time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
    try:
        split, _ = pynvml.nvmlDeviceGetMigMode(gpu)
    except pynvml.NVMLError:  # without MIG
        split = pynvml.NVML_DEVICE_MIG_DISABLE
    if split == pynvml.NVML_DEVICE_MIG_DISABLE:
        return 1
    return sum(_has_instance(gpu, place) for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)))


def _has_instance(gpu: Any, place: int) -> bool:
    import pynvml

    try:
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
    except pynvml.NVMLError:
        return False
    return True


def visible_gpus() -> list[str]:
    """The GPUs that programs started here use: those of `CUDA_VISIBLE_DEVICES`, or all in the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(count_gpus())]
    return sorted({part.strip() for part in named.split(",")} - {"", "-1"})


def gpu_memory() -> int | None:
    """Bytes of memory of the smallest GPU in the machine; None without one."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return min((int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total) for gpu in handles), default=None)
    except pynvml.NVMLError:
        return None


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
