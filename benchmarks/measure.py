"""Runs a command and measures it from outside: wall time and peak memory of its process tree."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Measured:
    """Seconds of wall time, bytes of peak memory (proportional share, summed over the tree) or 0, standard output."""

    seconds: float
    peak_bytes: int
    output: str


def run_measured(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path | None = None,
    echo: bool = False,
    watch_memory: bool = False,
) -> Measured:
    """Run a command to its end.

    Args:
        echo: also print what it prints.
        watch_memory: measure its peak memory. A large process is slower for it.

    Raises:
        RuntimeError: it failed; includes the end of its output.
    """
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(environment), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        sampler = _Sampler(process.pid)
        if watch_memory:
            sampler.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if echo:
                print(line, end="", flush=True)
        code = process.wait()
    seconds = time.perf_counter() - start
    peak = sampler.stop() if watch_memory else 0
    if code != 0:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {code}:\n{''.join(lines[-20:])}")
    return Measured(seconds, peak, "".join(lines))


class _Sampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.peak = max(self.peak, _tree_memory(self.pid))

    def stop(self) -> int:
        self.ended.set()
        self.join()
        return self.peak


def peak_memory() -> int:
    """Peak bytes of this process since its program started; `ru_maxrss` would include its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _tree_memory(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_full_info().pss
    return total


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)
