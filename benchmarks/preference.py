"""Training on pairs with a precomputed reference, against TRL's default, a resident reference model.

Same pairs, same steps, two epochs, for the tiny architecture and for one of 106 M parameters, both with random weights.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import run_measured, show
from data.arithmetic import embedded_problems
from data.rows import Pair, Problem
from data.storage import write_rows
from models import tiny
from models.config import LaunchConfig, LikelihoodProgram, PreferenceConfig, PreferenceProgram
from models.launch import launch_command
from tasks.stage.environment import child_environment

EPOCHS = 2


@dataclass(frozen=True)
class Case:
    """A model size, and the number of pairs that take a minute or two."""

    name: str
    shape: dict[str, int]
    pairs: int
    batch: int


CASES = [
    Case("tiny, 0.9 M", {}, 1024, 32),
    Case(
        "106 M",
        {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 15, "num_attention_heads": 12},
        32,
        8,
    ),
]


def main() -> None:
    rows = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            program = _prepare(folder, case)
            before = _run("likelihood", folder, _likelihood(program))
            ours = _run("precomputed", folder, program)
            # Its own folder: next to the other one's checkpoints it would continue from them.
            resident = _run("resident", folder, program.model_copy(update={"output": folder / "resident" / "policy"}))
        steps = EPOCHS * case.pairs // case.batch
        times = [ours["seconds"], ours["seconds"] + before["seconds"]]
        faster = [f"{seconds / resident['seconds']:.2f}" for seconds in times]
        rows += [
            [case.name, "resident reference (TRL)", *_row(resident, steps, 0.0)],
            ["", "precomputed reference", *_row(ours, steps, before["seconds"])],
            ["", "ratio", faster[0], "", faster[1], f"{ours['bytes'] / resident['bytes']:.2f}"],
        ]
    columns = ["model", "", "s per step", "pre-pass, s", f"s for {EPOCHS} epochs", "peak memory"]
    show("Preference training", columns, rows)


def _row(measured: dict[str, float], steps: int, before: float) -> list[str]:
    seconds = measured["seconds"]
    return [
        f"{seconds / steps:.2f}",
        f"{before:.1f}" if before else "",
        f"{seconds + before:.1f}",
        f"{measured['bytes'] / 2**20:,.0f} MiB",
    ]


def _prepare(folder: Path, case: Case) -> PreferenceProgram:
    """Write a random model, and pairs of gold answers and answers with another last number."""
    rng = random.Random(0)
    rows = []
    for problem in write_model(folder, case)[: case.pairs]:
        gold = problem.response or ""
        wrong = f"{gold.rsplit(' ', 1)[0]} {rng.randint(0, 60)}"
        rows.append(Pair(problem.id, 0, problem.messages, gold, wrong, None, None, "gold", "random"))
    write_rows(Pair, folder / "pairs.parquet", rows)
    return PreferenceProgram(
        policy=folder / "model",
        pairs=[folder / "pairs.parquet"],
        reference=[folder / "likelihood.parquet"],
        output=folder / "policy",
        seed=0,
        train=PreferenceConfig(beta=0.1, learning_rate=1e-6, epochs=EPOCHS, batch_size=case.batch, dtype="float32"),
        launch=LaunchConfig(micro_batch_size=case.batch, checkpoint_steps=10_000),
    )


def write_model(folder: Path, case: Case) -> list[Problem]:
    """Write a random model to `model/`, and return the worked problems that its tokenizer was made from."""
    from transformers import set_seed

    from models.loading import load_config, random_weights

    problems = [p for p in embedded_problems(0) if p.split == "demonstration"]
    tiny.write_untrained(folder / "model", (t for p in problems for t in (p.messages[0]["content"], p.response or "")))
    set_seed(0)
    config = load_config(folder / "model", "refuse")
    config.update(case.shape | ({"num_key_value_heads": case.shape["num_attention_heads"]} if case.shape else {}))
    config.head_dim = config.hidden_size // config.num_attention_heads
    random_weights(config, "refuse").save_pretrained(folder / "model")
    return problems


def _likelihood(program: PreferenceProgram) -> LikelihoodProgram:
    return LikelihoodProgram(
        policy=program.policy,
        pairs=program.pairs,
        outputs=program.reference,
        dtype=program.train.dtype,
        quantize=False,
        launch=program.launch,
    )


def _run(kind: str, folder: Path, program: PreferenceProgram | LikelihoodProgram) -> dict[str, float]:
    """Seconds of work, without startup and loading, and peak bytes of one way to do it."""
    file = folder / f"{kind}.json"
    file.write_text(program.model_dump_json())
    command = [*launch_command("benchmarks.preference", program.launch, file), kind]
    measured = run_measured(command, child_environment(), watch_memory=True)
    print(f"{kind}: {measured.output.split()[-1]} s", flush=True)
    return {"seconds": float(measured.output.split()[-1]), "bytes": measured.peak_bytes}


def child(kind: str, told: dict[str, Any]) -> None:
    """Do the work one way, and print its seconds."""
    from trl import DPOTrainer

    from models.training import likelihood, preference
    from models.training.common import enter, leave

    enter()
    spent = [0.0]
    if kind == "likelihood":
        likelihood.log_probs_of = _timed(likelihood.log_probs_of, spent)
        likelihood.measure(LikelihoodProgram.model_validate(told))
    else:
        DPOTrainer.train = _timed(DPOTrainer.train, spent)
        if kind == "resident":
            preference.PreferenceTrainer = _resident()
        preference.train(PreferenceProgram.model_validate(told))
    print(spent[0], flush=True)
    leave()


def _resident() -> type:
    """TRL's own trainer with a second model as the reference, on the same token ids."""
    from trl import DPOTrainer

    from models.training.common import load_policy

    class Resident(DPOTrainer):  # type: ignore[misc]
        def __init__(self, model: Any, args: Any, **rest: Any) -> None:
            args.precompute_ref_log_probs = False
            reference = load_policy(Path(model.config._name_or_path), "float32")
            super().__init__(model=model, ref_model=reference, args=args, **rest)

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return Resident


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = function(*arguments, **options)
        spent[0] += time.perf_counter() - start
        return result

    return run


if __name__ == "__main__":
    child(sys.argv[2], json.loads(Path(sys.argv[1]).read_text()))
