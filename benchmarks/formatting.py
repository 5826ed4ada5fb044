"""Formatting, splitting, deduplicating and decontaminating 10⁴ to 10⁶ rows, against a plain `datasets.map`.

The latter reads, maps and writes the same rows, but removes and splits nothing.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import peak_memory, run_measured, show

FORM = "Think about this step by step and then answer in the form of #### and a number ."
WORDS = 40
NEAR, EXACT = 0.02, 0.02  # shares of rows that repeat an earlier one, except for one word, or exactly


def main() -> None:
    rows = []
    for count in (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.jsonl"
            with file.open("w") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in _rows(count))
            ours, plain = (_measured(file, how) for how in ("ours", "plain"))
        ratio = float(ours[0]) / float(plain[0])
        cells = [f"{float(rate):,.0f}" for rate, _, _ in (ours, plain)]
        memory = [f"{int(peak) / 2**20:,.0f} MiB" for _, peak, _ in (ours, plain)]
        rows.append([f"{count:,}", *cells, f"{ratio:.2f}", *memory, f"{int(ours[2]):,}"])
    show(
        "Formatting, with deduplication and decontamination, and datasets.map without",
        ["rows", "ours per s", "map per s", "ratio", "our memory", "map's memory", "left out"],
        rows,
    )


def _measured(file: Path, how: str) -> list[str]:
    command = [sys.executable, "-m", "benchmarks.formatting", str(file), how]
    return run_measured(command, os.environ).output.split()[-3:]


def measure(file: Path, how: str) -> None:
    """Format a file; print rows per second, the peak memory in bytes, and how many rows were left out."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        rows, left_out = (_ours if how == "ours" else _plain)(file, Path(folder))
    seconds = time.perf_counter() - start
    print(rows / seconds, peak_memory(), left_out)


def _ours(file: Path, folder: Path) -> tuple[int, int]:
    from tasks.datasets.format import FormatConfig, format_data

    found = format_data(FormatConfig(problems=file, output=folder / "rows"))
    return found.tally.rows, found.dropped.total()


def _plain(file: Path, folder: Path) -> tuple[int, int]:
    from datasets import load_dataset

    from data.prepare.problems import split_of
    from data.rows import problem_id

    def formatted(row: dict[str, str]) -> dict[str, object]:
        messages = [{"role": "user", "content": row["question"]}]
        identity = problem_id(messages)
        return {"id": identity, "messages": messages, "reference": row["answer"], "split": split_of(identity)}

    rows = load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder))
    mapped = rows.map(formatted, remove_columns=rows.column_names)
    mapped.to_parquet(str(folder / "rows.parquet"))
    return len(mapped), 0


def _rows(count: int) -> "Iterator[dict[str, str]]":
    rng = random.Random(0)
    earlier: list[list[str]] = []
    for number in range(count):
        chance = rng.random()
        words = [f"word{rng.randrange(10_000)}" for _ in range(WORDS)]
        if earlier and chance < NEAR + EXACT:
            words = list(rng.choice(earlier))
            if chance < NEAR:
                words[-1] = f"word{rng.randrange(10_000)}"
        elif len(earlier) < 1000:
            earlier.append(words)
        yield {"question": f"{FORM} {' '.join(words)}", "answer": f"#### {number}"}


if __name__ == "__main__":
    measure(Path(sys.argv[1]), sys.argv[2])
