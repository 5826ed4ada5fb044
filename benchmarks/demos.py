"""Both demos on bases of several seeds: base, best and gain on test, and how often answers skip the steps.

Seed 0 uses the base that comes with the package; every other seed trains its own. Given a folder of runs, it continues
where it stopped, and shows finished runs at once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.measure import show
from data.arithmetic import shows_no_steps
from data.metrics import SetMetrics
from tasks.rollouts.evaluate import METRICS, OUTCOMES
from tasks.stage.environment import SHARED_CPU

CONFIGS = {"rest-em": "configs/demo.yaml", "spin": "configs/spin-demo.yaml"}
COLUMNS = ["flow", "seed", "base", "best", "gain", "excludes zero", "without steps"]


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary)
        demos = [(flow, seed, runs / f"{flow}-{seed}") for flow in options.flows for seed in options.seeds]

        def row(flow: str, seed: int, run: Path) -> list[str]:
            if not options.show:
                _run(flow, seed, run, options.jobs)
            found = [flow, str(seed), *measured(run)]
            print(" · ".join(found), flush=True)
            return found

        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(row, *zip(*demos, strict=True)))
    show("Demos, test problems; greedy answers without steps on validation, base → last", COLUMNS, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks demos", description=__doc__)
    parser.add_argument("--flows", nargs="+", choices=CONFIGS, default=list(CONFIGS), help="default: both")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)), help="default: 0 1 2 3 4")
    parser.add_argument("--runs", type=Path, help="folder of runs to continue; default: a temporary one")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, which share the cores; default: 1")
    parser.add_argument("--show", action="store_true", help="run nothing, only show existing runs")
    return parser.parse_args()


def _run(flow: str, seed: int, run: Path, jobs: int) -> None:
    autodidact = str(Path(sys.executable).with_name("autodidact"))
    command = [autodidact, flow, "--config", CONFIGS[flow], "--seed", str(seed), "--run", run.name]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    if jobs > 1:
        environment |= SHARED_CPU | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    subprocess.run([*command, "--runs-dir", str(run.parent)], check=True, env=environment, stdout=subprocess.DEVNULL)


def measured(run: Path) -> list[str]:
    """Base, best and gain on test, whether the gain excludes zero, and the share without steps, of a finished run."""
    base, best = (_metrics(run / "final" / name / "test") for name in ("base", "best"))
    gain = best.against["base"]
    habits = [without_steps(run / f"iter-{number}" / "evaluate" / "validation") for number in (0, _last(run))]
    return [
        *(str(value) for value in (base.greedy, best.greedy, gain)),
        "yes" if gain.low > 0 else "no",
        " → ".join(f"{habit:.1%}" for habit in habits),
    ]


def without_steps(folder: Path) -> float:
    """The share of a set's greedy answers that show no steps."""
    answers = [outcome["greedy_text"] for outcome in json.loads((folder / OUTCOMES).read_text())]
    return sum(map(shows_no_steps, answers)) / len(answers)


def _last(run: Path) -> int:
    return max(int(path.name.removeprefix("iter-")) for path in run.glob("iter-*"))


def _metrics(folder: Path) -> SetMetrics:
    return SetMetrics.model_validate_json((folder / METRICS).read_text())


if __name__ == "__main__":
    main()
