"""Scoring and selecting 10⁴ to 10⁶ generated samples: rows per second, and constant memory."""

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import peak_memory, run_measured, show

SAMPLES_PER_PROBLEM = 10


def main() -> None:
    rows = []
    for count in (10_000, 100_000, 1_000_000):
        measured = run_measured([sys.executable, "-m", "benchmarks.scoring", str(count)], os.environ)
        scored, selected, peak = measured.output.split()[-3:]
        rows.append([f"{count:,}", f"{float(scored):,.0f}", f"{float(selected):,.0f}", f"{int(peak) / 2**20:,.0f} MiB"])
    show("Scoring and selecting", ["samples", "scored per s", "selected per s", "peak memory"], rows)


def measure(count: int) -> None:
    """Write `count` samples, score and select them, print both rates and the peak memory in bytes."""
    from data.rewards import load_reward
    from data.rows import Example, Problem, Sample, Score
    from data.scoring import Tally, score_samples
    from data.selection import select_examples
    from data.storage import read_rows, write_rows

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(Problem, folder / "problems.parquet", _problems(count // SAMPLES_PER_PROBLEM))
        write_rows(Sample, folder / "samples.parquet", _samples(count))
        start = time.perf_counter()
        pairs = read_rows(Problem, folder / "problems.parquet"), read_rows(Sample, folder / "samples.parquet")
        scores = score_samples(*pairs, load_reward("final_answer"), "final_answer@1", Tally())
        write_rows(Score, folder / "scores.parquet", scores)
        scored = time.perf_counter()
        pairs = read_rows(Problem, folder / "problems.parquet"), read_rows(Sample, folder / "samples.parquet")
        examples = select_examples(*pairs, read_rows(Score, folder / "scores.parquet"), 1.0, 4, Counter())
        write_rows(Example, folder / "examples.parquet", examples)
        selected = time.perf_counter()
    print(count / (scored - start), count / (selected - scored), peak_memory())


def _problems(count: int) -> "Iterator[object]":
    from data.rows import Problem

    for number in range(count):
        yield Problem(f"{number:016x}", [{"role": "user", "content": f"What is {number}?"}], str(number), None, "", "")


def _samples(count: int) -> "Iterator[object]":
    from data.rows import Sample

    for number in range(count):
        problem, index = divmod(number, SAMPLES_PER_PROBLEM)
        answer = problem if index % 2 else problem + 1
        text = f"step {index // 3}: {answer} is {answer} #### {answer}"
        yield Sample(f"{problem:016x}", index, text, [7] * 40, "stop", "policy", number, "sampling")


if __name__ == "__main__":
    measure(int(sys.argv[1]))
