"""The demo from an empty cache: wall time, peak memory, and the overhead over its bare programs."""

import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Measured, run_measured, show
from models.config import LaunchConfig
from models.launch import SUPERVISED, launch_command
from tasks.rollouts.generate import generate_command
from tasks.stage.contract import PROGRAM
from tasks.stage.environment import SHARED_CPU, child_environment

CONFIG = "configs/demo.yaml"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {"AUTODIDACT_CACHE": str(folder / "cache")}
        autodidact = str(Path(sys.executable).with_name("autodidact"))
        command = [autodidact, "rest-em", "--config", CONFIG, "--runs-dir", str(folder / "runs")]
        demo = run_measured(command, environment, echo=True, watch_memory=True)
        again = run_measured(command, environment)
        run = folder / "runs" / "demo"
        bare = [_bare(path, folder / "bare" / str(i)) for i, path in enumerate(sorted(run.rglob(PROGRAM)))]
    programs = sum(m.seconds for m in bare)
    rows = [
        ["demo", f"{demo.seconds:,.0f} s", "≤ 480 s"],
        ["its peak memory, all processes", f"{demo.peak_bytes / 2**30:.1f} GiB", "≤ 6 GiB"],
        [f"its {len(bare)} programs, run bare, one after another", f"{programs:,.0f} s", ""],
        ["demo / programs", f"{demo.seconds / programs:.3f}", "≤ 1.05"],
        ["the finished demo, run again", f"{again.seconds:.1f} s", "< 5 s"],
    ]
    show("Demo", ["what", "measured", "target"], rows)


def _bare(program: Path, folder: Path) -> Measured:
    """Run a stage's program again with the same inputs, into an empty folder."""
    folder.mkdir(parents=True)
    told, config = json.loads(program.read_text()), folder / PROGRAM
    stage = program.parent
    if "jobs" in told:
        for number, job in enumerate(told["jobs"]):
            job["output"] = str(folder / str(number))
        command, environment = generate_command(config), child_environment(SHARED_CPU)
    else:
        told["output"] = str(folder / "policy")
        command, environment = launch_command(SUPERVISED, LaunchConfig(**told["launch"]), config), child_environment()
    config.write_text(json.dumps(told))
    measured = run_measured(command, environment, watch_memory=True)  # as the demo
    print(f"bare: {stage.parent.name}/{stage.name} {measured.seconds:.1f} s", flush=True)
    return measured


if __name__ == "__main__":
    main()
