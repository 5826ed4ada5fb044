"""Training rows: seconds until the first batch and resident memory, from Arrow on disk and from lists in memory.

Each is a program of its own, which does what training does before its first step, except for loading a model. Memory
is that of the process alone; pages of files that the system may drop at any time are counted apart.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.measure import show
from data import arithmetic
from data.rows import Example
from data.storage import count_rows, read_rows, write_rows
from tasks.policies.shipped import BASES, POLICY
from tasks.stage.environment import child_environment

SIZES = {"disk": (10_000, 100_000, 1_000_000), "lists": (10_000, 100_000)}
WAYS = {"disk": "Arrow on disk", "lists": "lists in memory"}


def main() -> None:
    table = []
    with tempfile.TemporaryDirectory() as name:
        for way, sizes in SIZES.items():
            first: list[float] = []
            for size in sizes:
                file = Path(name) / f"{size}.parquet"
                if not file.exists():
                    write_rows(Example, file, _examples(size))
                command = [sys.executable, "-m", "benchmarks.rows", way, str(file)]
                done = subprocess.run(command, env=child_environment(), check=True, capture_output=True, text=True)
                seconds, own, pages = map(float, done.stdout.split()[-3:])
                first = first or [seconds, own]
                ratio = f"{own / first[1]:.2f}"
                table.append(
                    [WAYS[way], f"{size:,}", f"{seconds:.1f}", f"{own / 2**20:,.0f}", ratio, f"{pages / 2**20:,.0f}"]
                )
    columns = ["rows are", "rows", "seconds to the first batch", "MiB", "÷ that of the fewest", "MiB of file pages"]
    show("Training rows until the first batch", columns, table)


def _examples(count: int) -> Iterator[Example]:
    problems = [p for p in arithmetic.embedded_problems(0) if p.response]
    for number in range(count):
        problem = problems[number % len(problems)]
        yield Example(problem.id, number, problem.messages, problem.response or "", None, "", 1.0, "")


def measure(way: str, file: Path) -> None:
    """Print seconds, and at the end bytes of the process's own memory and of mapped files."""
    from datasets import Dataset
    from torch.utils.data import DataLoader, RandomSampler

    from models.training.common import padded_tokenizer
    from models.training.rows import IDS, NUMBERS, rows_on_disk
    from models.training.supervised import Collator, encode

    tokenizer = padded_tokenizer(BASES / "half-bare" / POLICY, "refuse")

    def rows() -> Iterator[dict[str, Any]]:
        for example in read_rows(Example, file):
            yield encode(tokenizer, example, 1024)

    start = time.perf_counter()
    if way == "disk":
        features = {"input_ids": IDS, "labels": IDS, "weights": NUMBERS}
        with tempfile.TemporaryDirectory(dir=file.parent) as folder:
            dataset = rows_on_disk(Path(folder), rows, features, nullcontext)
    else:
        dataset = Dataset.from_list(list(rows()))
    assert len(dataset) == count_rows(file)
    loader = DataLoader(dataset, 8, sampler=RandomSampler(dataset), collate_fn=Collator(0))  # type: ignore[arg-type]
    next(iter(loader))
    seconds = time.perf_counter() - start
    for row in dataset.select_columns("input_ids").iter(1000):  # as an epoch would touch every row
        del row
    print(seconds, _status("RssAnon"), _status("RssFile"))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
