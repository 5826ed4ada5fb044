"""Kinds of fine-tuning side by side: what each trains, writes, needs and reaches, at three learning rates.

The embedded base, which often shows only a result, learns from 1,000 worked examples; how often its greedy answers to
500 other problems are correct is measured before and after. BitFit trains a copy with biases of zero. Time per step is
what a second pass adds to a first.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from benchmarks.measure import run_measured, show
from benchmarks.on_policy import BASE
from benchmarks.programs import sampled, write_program
from data import arithmetic
from data.metrics import bootstrap_interval
from data.rewards.loading import load_reward
from data.rows import Example, Problem, Sample
from data.scoring import Tally, score_samples
from data.storage import read_rows, write_rows
from models.adapters.virtual_tokens import ENCODER
from models.config import EngineConfig, LaunchConfig, MergeProgram, SupervisedConfig, TrainProgram
from models.launch import SUPERVISED, launch_command
from models.loading import load_tokenizer, load_weights, random_weights
from tasks.policies.adapter import put_beside
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import SHARED_CPU, child_environment

EXAMPLES, PROBLEMS, EPOCHS, BATCH = 1000, 500, 2, 32
WHOLE = "all weights"
COLUMNS = ["kind", "trained", "on disk", "peak memory", "time per step", "learning rate: greedy accuracy"]


@dataclass(frozen=True)
class Case:
    """How a kind is set, and the learning rates to try."""

    adapter: dict[str, Any] | None
    rates: tuple[float, float, float]


MIDDLE = 1e-4, 3e-4, 1e-3
HIGH = 1e-3, 3e-3, 1e-2
CASES = {
    WHOLE: Case(None, MIDDLE),
    "lora": Case({}, HIGH),
    "lora, dora": Case({"dora": True}, HIGH),
    "lora, rslora": Case({"rslora": True}, HIGH),
    "adalora": Case({"kind": "adalora", "adalora": {"interval": 5}}, HIGH),
    "ia3": Case({"kind": "ia3"}, (3e-3, 1e-2, 3e-2)),
    "bitfit": Case({"kind": "bitfit"}, HIGH),
    "diff-pruning": Case({"kind": "diff-pruning"}, MIDDLE),
    "prompt": Case({"kind": "prompt"}, (3e-3, 1e-2, 3e-2)),
    "p-tuning": Case({"kind": "p-tuning"}, MIDDLE),
    "prefix": Case({"kind": "prefix"}, MIDDLE),
    "bottleneck": Case({"kind": "bottleneck"}, HIGH),
}


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        worked = [p for p in arithmetic.embedded_problems(0) if p.split == "demonstration"][:EXAMPLES]
        rows = (Example(p.id, 0, p.messages, p.response or "", None, "", 1.0) for p in worked)
        write_rows(Example, folder / "examples.parquet", rows)
        asked = [p for p in arithmetic.embedded_problems(0) if p.split == "validation"][:PROBLEMS]
        write_biased(BASE, folder / "biased")
        print(f"the base: {_accuracy(folder / 'base', BASE, asked)}", flush=True)
        rows = [_row(name, folder, asked) for name in options.kinds]
    show(f"{EXAMPLES:,} examples × {EPOCHS}, batches of {BATCH}, float32", COLUMNS, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks adapters", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=CASES, default=list(CASES), help="default: all")
    return parser.parse_args()


def _row(name: str, folder: Path, asked: list[Problem]) -> list[str]:
    case, start = CASES[name], folder / "biased" if name == "bitfit" else BASE
    reached = []
    for number, rate in enumerate(case.rates):
        here = folder / f"{name} {number}"
        took, peak = _train(here, start, case.adapter, rate, EPOCHS, folder, watch_memory=False)
        reached.append(f"{rate:g}: {_accuracy(here, here / 'policy', asked)}")
        print(f"{name}, {reached[-1]}", flush=True)
    once, _ = _train(folder / f"{name} once", start, case.adapter, case.rates[1], 1, folder, watch_memory=False)
    watched = folder / f"{name} watched"
    _, peak = _train(watched, start, case.adapter, case.rates[1], 1, folder, watch_memory=True)
    steps = -(-EXAMPLES // BATCH)
    size, trained = _written(here, case.adapter is not None)
    cells = [f"{trained:,}", f"{size / 1e3:,.0f} kB", f"{peak / 2**20:,.0f} MiB", f"{(took - once) / steps:.2f} s"]
    return [name, *cells, "\n".join(reached)]


def _train(
    folder: Path,
    start: Path,
    adapter: dict[str, Any] | None,
    rate: float,
    epochs: int,
    parent: Path,
    watch_memory: bool,
) -> tuple[float, int]:
    """Train, and merge if there is something to merge. Return the seconds of training, and its peak memory."""
    folder.mkdir()
    how = {"learning_rate": rate, "epochs": epochs, "batch_size": BATCH, "dtype": "float32", "adapter": adapter}
    program = TrainProgram(
        policy=start,
        examples=[parent / "examples.parquet"],
        output=folder / "policy",
        seed=1,
        train=SupervisedConfig.model_validate(how),
        launch=LaunchConfig(micro_batch_size=BATCH),
    )
    (folder / "train.json").write_text(program.model_dump_json())
    command = launch_command(SUPERVISED, program.launch, folder / "train.json")
    measured = run_measured(command, child_environment() | SHARED_CPU, watch_memory=watch_memory)
    if program.train.beside:
        put_beside(start, folder / "adapter", folder / "policy")
    elif adapter is not None:
        merge = MergeProgram(policy=start, adapter=folder / "adapter", output=folder / "policy", dtype="float32")
        (folder / "merge.json").write_text(merge.model_dump_json())
        command = [sys.executable, "-m", "models.training.merge", str(folder / "merge.json")]
        run_measured(command, child_environment() | SHARED_CPU)
    return measured.seconds, measured.peak_bytes


def _written(folder: Path, adapter: bool) -> tuple[int, int]:
    """Bytes of the weights that a training wrote, and how many numbers there are in them."""
    file = folder / ("adapter/adapter_model.safetensors" if adapter else "policy/model.safetensors")
    encoder = folder / "adapter" / ENCODER  # whose output is what is written
    trained = load_file(encoder if encoder.exists() else file)
    return file.stat().st_size, sum(tensor.size for name, tensor in trained.items() if not name.endswith(".indices"))


def _accuracy(folder: Path, policy: Path, asked: list[Problem]) -> str:
    """The share of greedy answers that are correct, with its interval."""
    file = folder / "generate.json"
    folder.mkdir(exist_ok=True)
    program = write_program(file, policy, asked, sampled(1, temperature=0.0), EngineConfig(max_num_seqs=512))
    run_measured(generate_command(file), child_environment() | SHARED_CPU)
    samples = list(read_rows(Sample, program.jobs[0].output))
    scores = score_samples(asked, samples, load_reward("final_answer"), "final_answer", Tally())
    found = bootstrap_interval([float(score.verdict == "correct") for score in scores], seed=0)
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def write_biased(policy: Path, folder: Path) -> None:
    """Write a copy of an embedded policy with biases of zero, which change nothing."""
    model = load_weights("AutoModelForCausalLM", policy, "refuse", dtype="float32")
    config = type(model.config).from_dict(model.config.to_dict() | {"attention_bias": True, "mlp_bias": True})
    biased = random_weights(config, "refuse")
    for name in biased.load_state_dict(model.state_dict(), strict=False).missing_keys:
        assert name.endswith(".bias"), name
        biased.get_parameter(name).data.zero_()
    biased.save_pretrained(folder)
    load_tokenizer(policy, "refuse").save_pretrained(folder)
