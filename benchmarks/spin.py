"""The SPIN paper's ablation (figure 3): SPIN against continued SFT for as many steps, from the same base."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measure import show
from data.measures import ACCURACY

CONFIG = "configs/spin-demo.yaml"
LEARNING_RATES = (1e-5, 1e-4, 1e-3)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        runs = Path(name)
        spin = _run(runs, "spin", CONFIG, "spin")
        steps = sum(_steps(stage) for stage in (runs / "spin").glob("iter-*/train"))
        rows = [_row(f"SPIN, {steps} steps", spin)]
        for rate in LEARNING_RATES:
            sft = _run(runs, "sft", _sft_settings(runs, steps, rate), f"sft-{rate:g}")
            taken = _steps(runs / f"sft-{rate:g}" / "iter-1" / "train")
            rows.append(_row(f"SFT continued, {taken} steps at {rate:g}", sft))
        rows.insert(0, ["base", spin["iterations"][0][ACCURACY.label], ""])
    show("SPIN and continued SFT: greedy accuracy on validation", ["policy", "pass@1", "gain over the base"], rows)


def _sft_settings(runs: Path, steps: int, rate: float) -> str:
    """SPIN's settings, with SFT training for as many steps with as many examples."""
    import yaml

    from flows.spin import Spin

    settings = yaml.safe_load(Path(CONFIG).read_text())
    batch = settings["train"]["batch_size"]
    examples = Spin().expected_problems["train"]
    kept = {key: settings[key] for key in ("bootstrap", "generate", "evaluate", "engine", "launch")}
    train = {"learning_rate": rate, "epochs": steps * batch / examples, "batch_size": batch, "dtype": "float32"}
    train |= {"adapter": None, "schedule": "linear", "pack_to": None}
    file = runs / f"sft-{rate:g}.yaml"
    file.write_text(yaml.safe_dump(kept | {"measure": "accuracy", "train": train}))
    return str(file)


def _run(runs: Path, flow: str, config: str, name: str) -> dict[str, Any]:
    autodidact = str(Path(sys.executable).with_name("autodidact"))
    command = [autodidact, flow, "--config", config, "--run", name, "--runs-dir", str(runs)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return dict(json.loads((runs / name / "summary.json").read_text()))


def _steps(stage: Path) -> int:
    return int(json.loads((stage / "metrics.jsonl").read_text().splitlines()[-1])["step"])


def _row(name: str, summary: dict[str, Any]) -> list[str]:
    """A row for the last policy, good or bad: the test set measures only the best by validation."""
    last = summary["iterations"][-1]
    return [name, last[ACCURACY.label], last["against base"]]


if __name__ == "__main__":
    main()
