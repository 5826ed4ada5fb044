"""Methods side by side: ReST-EM, GRPO, RLOO, SPIN and more SFT from the same base, at what GRPO's demo spends.

Each has its demo's settings, and goes on until it has spent as much, once in sampled tokens and once in wall time
(without what is measured, but SPIN's answers to validation prompts). The policy that comes nearest is compared with its
base on the validation problems, which decide nothing here. SFT samples nothing: it learns gold answers for as long.
Seed 0 uses the base that comes with the package; every other seed trains its own. Given a folder of runs, it continues
where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import yaml

from benchmarks.measure import show
from data.metrics import Interval, Outcome, bootstrap_interval, pass_at_k
from data.render import pad_token_id
from data.rows import Example, Problem, Sample
from data.storage import parquet_files, read_rows
from flows.commands.config_file import merge
from models.on_policy import ROLLOUTS
from tasks.rollouts.evaluate import OUTCOMES
from tasks.stage.contract import MANIFEST, Manifest
from tasks.stage.environment import SHARED_CPU

K = 8
MEASURED: dict[str, Any] = {
    "evaluate": {"samples": K, "temperature": 1.0, "top_p": 1.0, "pass_at": [1, K]},
    "measure": "last",
}
MEASURED |= {"launch": {"evaluations": 0}}  # within training
MEASURED |= {"stop": {"rule": "none"}, "limit_test": 24, "limit_transfer": 24}
ARMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GRPO": ("grpo", "configs/grpo-demo.yaml", {}),
    "RLOO": ("grpo", "configs/grpo-demo.yaml", {"train": {"advantage": "leave-one-out"}}),
    "ReST-EM": ("rest-em", "configs/demo.yaml", {"iterations": 4}),
    "SPIN": ("spin", "configs/spin-demo.yaml", {"iterations": 6, "train": {"epochs": 1}}),
}
SFT = {"learning_rate": 1e-4, "batch_size": 32, "adapter": None, "pack_to": None}  # the best of the spin benchmark's
BUDGETS = ("tokens", "seconds")
NOT_SPENT, TAKE_LONG = ("evaluate", "likelihood"), ("generate", "train")
COLUMNS = ["method", "tokens", "seconds", "sampled pass@1", "greedy pass@1", f"pass@{K}", "KL"]


@dataclass(frozen=True)
class Spent:
    """An iteration's policy, and what it has cost since the base."""

    iteration: Path
    tokens: int
    seconds: float


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        runs = options.runs or Path(temporary)
        with ThreadPoolExecutor(options.jobs) as pool:
            drawn = pool.map(lambda seed: _arm(runs, "GRPO", seed, options.jobs), options.seeds)
            first = dict(zip(options.seeds, drawn, strict=True))
            budget = {seed: spent(run)[-1] for seed, run in first.items()}
            asked = [(name, seed) for seed in options.seeds for name in ARMS if name != "GRPO"]
            others = pool.map(lambda one: _arm(runs, *one, options.jobs), asked)
            found = {("GRPO", seed): run for seed, run in first.items()} | dict(zip(asked, others, strict=True))
            learned = pool.map(lambda seed: _sft(runs, seed, budget[seed], options.jobs), options.seeds)
            found |= {("SFT", seed): run for seed, run in zip(options.seeds, learned, strict=True)}
        for kind in BUDGETS:
            _show(kind, found, budget)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks methods", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--runs", type=Path, help="folder of runs to continue; default: a temporary one")
    parser.add_argument("--jobs", type=int, default=1, help="parallel runs, which share the cores; default: 1")
    return parser.parse_args()


def _show(kind: str, found: dict[tuple[str, int], Path], budget: dict[int, Spent]) -> None:
    """Print a row for each run, and a table of the means over seeds with the seeds' values."""
    rows = []
    for name in (*ARMS, "SFT"):
        of_it = []
        for seed, at_most in budget.items():
            points = spent(found[name, seed])
            point = _nearest(kind, points, at_most)
            if max(getattr(one, kind) for one in points) < 0.9 * getattr(at_most, kind):
                print(f"{name}, seed {seed} ended before it had spent as many {kind}", flush=True)
            gains, kl = _gains(point.iteration, seed), _kl(point.iteration)
            of_it.append((point, gains, kl))
            said = [f"{label} {gain}" for label, gain in gains.items()]
            print(f"same {kind}: {name}, seed {seed}: " + " · ".join([*said, f"KL {kl:.3f}"]), flush=True)
        points = [point for point, _, _ in of_it]
        cost = [f"{mean(p.tokens for p in points):,.0f}", f"{mean(p.seconds for p in points):,.0f}"]
        gains = [_over_seeds([gains[label].value for _, gains, _ in of_it]) for label in of_it[0][1]]
        rows.append([name, *cost, *gains, f"{mean(kl for _, _, kl in of_it):.3f}"])
    show(f"Gain over the base in points at the same {kind}: mean of {len(budget)} seeds (each)", COLUMNS, rows)


def _over_seeds(values: list[float]) -> str:
    return f"{100 * mean(values):+.1f} ({', '.join(f'{100 * value:+.1f}' for value in values)})"


def _nearest(kind: str, points: list[Spent], budget: Spent) -> Spent:
    return min(points, key=lambda point: abs(getattr(point, kind) - getattr(budget, kind)))


def spent(run: Path) -> list[Spent]:
    """The iterations of a run after the base, with their cost added up."""
    found, tokens, seconds = [], 0, 0.0
    for number in range(1, 1 + len(list(run.glob(f"iter-*/train/{MANIFEST}")))):
        folder = run / f"iter-{number}"
        for file in folder.glob(f"*/{MANIFEST}"):
            made = Manifest.model_validate_json(file.read_text())
            if file.parent.name not in NOT_SPENT:
                seconds += made.seconds
                if made.samples == 0 and file.parent.name in TAKE_LONG:
                    raise SystemExit(f"{file.parent} was not made in one go, so its time is unknown. Delete {run}.")
        for drawn in (folder / "generate" / "samples", folder / "train" / ROLLOUTS):
            tokens += _tokens(drawn) if drawn.is_dir() else 0
        if run.name.startswith("SFT"):
            tokens = _gold_tokens(run)
        found.append(Spent(folder, tokens, seconds))
    return found


def _tokens(drawn: Path) -> int:
    lengths = ds.dataset([str(file) for file in parquet_files(drawn)]).to_table(columns=["token_ids"])["token_ids"]
    return int(pc.sum(pc.list_value_length(lengths)).as_py())


def _gold_tokens(run: Path) -> int:
    """Tokens of gold answers that an SFT run has learned, each as often as it was."""
    from models.loading import load_tokenizer

    tokenizer = load_tokenizer(run / "base" / "policy", "refuse")
    rows = read_rows(Example, next(run.glob("iter-1/*/examples.parquet")))
    once = sum(len(tokenizer(row.completion)["input_ids"]) + 1 for row in rows)
    return round(once * float(json.loads((run / "config.json").read_text())["train"]["epochs"]))


def _gains(iteration: Path, seed: int) -> dict[str, Interval]:
    """What a policy gained over the base on validation, problem by problem."""
    ours, theirs = (_outcomes(folder) for folder in (iteration, iteration.parent / "iter-0"))
    pairs = [(one, theirs[name]) for name, one in ours.items()]

    def of(value: str, k: int = 1) -> Interval:
        one = {"greedy": lambda o: float(o.greedy_correct), "pass": lambda o: pass_at_k(o.samples, o.correct, k)}[value]
        return bootstrap_interval([one(after) - one(before) for after, before in pairs], seed)

    return {"sampled pass@1": of("pass"), "greedy pass@1": of("greedy"), f"pass@{K}": of("pass", K)}


def _outcomes(iteration: Path) -> dict[str, Outcome]:
    rows = json.loads((iteration / "evaluate" / "validation" / OUTCOMES).read_text())
    return {row["problem_id"]: Outcome.model_validate(row) for row in rows}


def _kl(iteration: Path) -> float:
    """KL divergence from the base in nats per token, at an answer that it sampled to each validation problem."""
    from trl.trainer.utils import add_fused_lm_head

    from data.render import prompt_token_ids
    from models.loading import load_tokenizer
    from models.training.common import load_policy
    from models.training.likelihood import log_probs_of

    run, policies = iteration.parent, []
    for folder in (iteration / "train" / "policy", run / "base" / "policy"):
        policies.append(load_policy(folder, "float32").eval())
        add_fused_lm_head(policies[-1])
    tokenizer = load_tokenizer(run / "base" / "policy", "refuse")
    problems = read_rows(Problem, run / "problems" / "validation.parquet")
    prompts = {problem.id: prompt_token_ids(tokenizer, problem.messages) for problem in problems}
    samples = [row for row in read_rows(Sample, iteration / "evaluate" / "validation" / "sampled") if row.index == 0]
    rows = [(prompts[sample.problem_id], sample.token_ids) for sample in samples]
    padding, away, size = pad_token_id(tokenizer), 0.0, 256
    for first in range(0, len(rows), size):
        ours, theirs = (log_probs_of(p, rows[first : first + size], padding, "cpu") for p in policies)
        away += sum(ours) - sum(theirs)
    return away / sum(len(sample.token_ids) for sample in samples)


def _arm(runs: Path, name: str, seed: int, jobs: int) -> Path:
    flow, config, changes = ARMS[name]
    extended = {"extends": str(Path(config).absolute())}
    return _run(runs, flow, f"{name}-{seed}", merge(MEASURED, changes | extended | {"seed": seed}), jobs)


def _sft(runs: Path, seed: int, budget: Spent, jobs: int) -> Path:
    """As many seconds as the budget has, by what an example took ReST-EM, which trains with the same batches."""
    trained = Manifest.model_validate_json((runs / f"ReST-EM-{seed}" / "iter-1" / "train" / MANIFEST).read_text())
    an_example = trained.seconds / ((trained.rows_out or 0) * trained.config["epochs"])
    shared = yaml.safe_load(Path("configs/tiny.yaml").read_text())
    del shared["iterations"]  # it has one
    epochs = round(budget.seconds / an_example / shared["bootstrap"]["demonstrations"], 2)
    changes = {"seed": seed, "train": SFT | {"epochs": epochs}}
    return _run(runs, "sft", f"SFT-{seed}", merge(merge(shared, MEASURED), changes), jobs)


def _run(runs: Path, flow: str, name: str, settings: dict[str, Any], jobs: int) -> Path:
    """Run a flow, or go on with it; a finished one takes seconds."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings | {"run": name, "runs_dir": str(runs.absolute())}))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    if jobs > 1:
        environment |= SHARED_CPU | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    command = [str(Path(sys.executable).with_name("autodidact")), flow, "--config", str(file)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return runs / name


if __name__ == "__main__":
    main()
