"""Runs that were made by an earlier commit, kept as their manifests, and laid out again with files of the same sizes.

    python -m tests.flows.kept_runs RUN…

keeps finished runs in tests/flows/kept/, when what a stage is has been changed on purpose.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from tasks.rollouts.evaluate import METRICS, OUTCOMES
from tasks.rollouts.measured import ESTIMATES
from tasks.stage.contract import MANIFEST
from tasks.stage.run import CONFIG, PLAN, SUMMARY
from tasks.tracking.recorder import REPORT

KEPT = Path(__file__).parent / "kept"
READ = (METRICS, ESTIMATES)  # what is read of a finished run to say how far it is


def keep(run: Path) -> None:
    """Write a run's manifests and what else is read of it to one file, without the names of places."""
    stages = {}
    for file in sorted(run.rglob(MANIFEST)):
        manifest = json.loads(file.read_text())
        if "fingerprint" in manifest:
            command = [Path(part).name for part in manifest["command"]]
            stages[manifest["stage"]] = manifest | {"command": command, "host": "host", "runs": {}}
    texts = [file for name in READ for file in run.rglob(name) if file.parent.parent.name[0] != "."]
    content = {
        "config": json.loads((run / CONFIG).read_text()) | {"runs_dir": "runs"},
        "plan": json.loads((run / PLAN).read_text()),
        "iterations": json.loads((run / SUMMARY).read_text())["iterations"],
        "texts": {str(file.relative_to(run)): file.read_text() for file in sorted(texts)},
        "stages": stages,
    }
    (KEPT / f"{run.name}.json").write_text(json.dumps(content, indent=1) + "\n")


def lay_out(name: str, runs: Path) -> dict[str, Any]:
    """Lay a kept run out in a folder of runs, as it was but for the content of larger files; return its settings."""
    content: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text())
    run, settings = runs / content["config"]["run"], content["config"] | {"runs_dir": str(runs)}
    for stage, manifest in content["stages"].items():
        for output, record in manifest["outputs"].items():
            file = run / stage / output
            file.parent.mkdir(parents=True, exist_ok=True)
            text = content["texts"].get(f"{stage}/{output}", "[]" if file.name == OUTCOMES else "")
            file.write_text(text.ljust(record["size"]) if text else "", encoding="utf-8")
            os.truncate(file, record["size"])
        (run / stage / MANIFEST).write_text(json.dumps(manifest))
    (run / ".lock").touch()
    (run / CONFIG).write_text(json.dumps(settings))
    (run / PLAN).write_text(json.dumps(content["plan"]))
    (run / REPORT).touch()
    (run / SUMMARY).write_text(json.dumps({"iterations": content["iterations"]}))
    return {key: value for key, value in settings.items() if key not in ("algorithm", "decided_by")}


if __name__ == "__main__":
    for given in sys.argv[1:]:
        keep(Path(given))
