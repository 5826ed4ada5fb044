"""Verdicts per second for math and programs with one and two workers, and how much scoring time is hidden.

`models.score` grades the answers of each kind, as in a loop. The sandbox's cost is compared with the same program run
bare. Hidden time is measured with a stand-in for generation, which writes shards at the pace of a generation as fast as
scoring, and leaves the CPU idle, as a GPU does.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import show
from data.rows import Problem, Sample
from data.sandbox.isolation import Limits, isolation
from data.sandbox.judging import judge_by_output
from data.storage import write_rows
from models.config import ScoreJob
from tasks.rollouts.rewards import RewardConfig
from tasks.rollouts.scoring import scoring_ahead, scoring_program
from tasks.stage.run import Run

SHARDS = 8


def plain(number: int) -> tuple[str, str]:
    return str(number), f"so it is {number} #### {number + number % 2}"


def latex(number: int) -> tuple[str, str]:
    return rf"\frac{{{number}}}{{{number + 7}}}", rf"it is \boxed{{\frac{{{2 * number}}}{{{2 * number + 14}}}}}"


def pathological(number: int) -> tuple[str, str]:
    """Half of the answers are LaTeX; every fiftieth takes its full limit of five seconds."""
    answers = [f"{'(' * 400}{number}{')' * 400}", "9" * 900, rf"\sqrt{{{number}}}" * 40, rf"\frac{{{number}}}{{0}}"]
    slow = rf"{number}^{{{number}^{{{number}^{{{number}}}}}}}"
    if number % 50 == 3:
        return rf"\sqrt{{{number}}}", rf"\boxed{{{slow}}}"
    return latex(number) if number % 2 else (rf"\sqrt{{{number}}}", rf"\boxed{{{answers[number // 2 % 4]}}}")


def code(number: int) -> tuple[str, str]:
    task = {"kind": "mbpp", "setup": "", "asserts": [f"assert add({i}, {number}) == {i + number}" for i in range(3)]}
    return json.dumps(task), "def add(a, b):\n    return a + b" if number % 2 else "def add(a, b):\n    return a"


KINDS: dict[str, tuple[Callable[[int], tuple[str, str]], str, int]] = {
    "math, plain numbers": (plain, "final_answer", 100_000),
    "math, LaTeX": (latex, "final_answer", 2_000),
    "math, pathological": (pathological, "final_answer", 200),
    "programs": (code, "program", 400),
}


def main() -> None:
    rows = []
    for title, (make, reward, count) in KINDS.items():
        one, two = (_seconds(make, reward, count, workers) for workers in (1, 2))
        rows.append([title, f"{count:,}", f"{count / one:,.0f}", f"{count / two:,.0f}", f"{one / two:.2f}"])
    show("Verdicts per second", ["answers", "number", "1 worker", "2 workers", "ratio"], rows)
    _show_overhead()
    _show_hidden()


def _seconds(make: Callable[[int], tuple[str, str]], reward: str, count: int, workers: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        job = _job(Path(folder), make, count)
        config = RewardConfig(name=reward, workers=workers, parts={}, options={})
        command = scoring_program(config, [job], Path(folder) / "scorer.json")
        start = time.perf_counter()
        subprocess.run(command, check=True)
        return time.perf_counter() - start


def _job(folder: Path, make: Callable[[int], tuple[str, str]], count: int) -> ScoreJob:
    made = [make(number + 2) for number in range(count)]
    problems = [Problem(f"{n:016x}", [], reference, None, "", "") for n, (reference, _) in enumerate(made)]
    write_rows(Problem, folder / "problems.parquet", problems)
    job = ScoreJob(problems=folder / "problems.parquet", samples=folder / "samples", output=folder / "scores")
    job.samples.mkdir()
    job.output.mkdir()
    for shard in range(SHARDS):
        _write_shard(job, shard, made)
    return job


def _write_shard(job: ScoreJob, shard: int, made: list[tuple[str, str]]) -> None:
    numbers = range(shard * len(made) // SHARDS, (shard + 1) * len(made) // SHARDS)
    rows = [Sample(f"{n:016x}", 0, made[n][1], [7] * 40, "stop", "policy", n, "s") for n in numbers]
    write_rows(Sample, job.samples / f"{shard:06d}.parquet", rows)


def _show_overhead() -> None:
    script, repeats = "print(2 * int(input()))", 50
    start = time.perf_counter()
    for _ in range(repeats):
        judge_by_output(script, [("2", "4")], Limits())
    sandboxed = (time.perf_counter() - start) / repeats
    start = time.perf_counter()
    for _ in range(repeats):
        subprocess.run([sys.executable, "-I", "-S", "-c", script], input=b"2", capture_output=True, check=True)
    bare = (time.perf_counter() - start) / repeats
    row = [isolation().level, f"{sandboxed * 1000:.0f} ms", f"{bare * 1000:.0f} ms", f"{sandboxed / bare:.1f}"]
    show("A program that prints one line", ["level", "sandboxed", "bare", "ratio"], [row])


def _show_hidden() -> None:
    rows = []
    for title, (make, reward, count) in KINDS.items():
        if make is pathological:
            continue
        alone = _seconds(make, reward, count, 1)
        for pace in (0.5, 1.0, 2.0):
            after = _seconds_after_generation(make, reward, count, alone * pace)
            rows.append([title, f"{pace:g}", f"{alone:.1f} s", f"{after:.1f} s", f"{max(0.0, 1 - after / alone):.0%}"])
    columns = ["answers", "generation takes, over scoring", "scoring alone", "after generation", "hidden"]
    show("Scoring while answers are generated", columns, rows)


def _seconds_after_generation(
    make: Callable[[int], tuple[str, str]], reward: str, count: int, generation: float
) -> float:
    """How long scoring continues after the end of a generation that takes `generation` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        (run.directory / "iter-1").mkdir()
        job = _job(Path(folder), make, count)
        shards = sorted(job.samples.iterdir())
        for shard in shards:
            shard.rename(shard.with_suffix(".waits"))
        with scoring_ahead(run.place("iter-1"), job, RewardConfig(name=reward, ahead=True, parts={}, options={})):
            for shard in shards:
                time.sleep(generation / len(shards))
                shard.with_suffix(".waits").rename(shard)
            ended = time.perf_counter()
        return time.perf_counter() - ended
