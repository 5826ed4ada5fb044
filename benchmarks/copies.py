"""RLHF's memory: how many copies of the policy's weights the program holds, with an adapter and without.

Two policies of random weights differ only in size; what their peaks of memory differ by, over what their weights differ
by, is the number of copies: what does not grow with the policy cancels out. The value model is small. A peak also has
what an update and the writing of a checkpoint need for a moment.
"""

import json
import tempfile
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.on_policy import BASE, REWARDS
from data import arithmetic
from data.rows import Problem
from data.storage import write_rows
from models.config import EngineConfig, LaunchConfig
from models.estimate import parameters_of
from models.launch import ON_POLICY, launch_command
from models.on_policy import OnPolicyProgram, OnPolicySamplingConfig, PPOConfig
from tasks.stage.environment import child_environment

BYTES = 4  # float32
LAYERS = (4, 12)
SHAPE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 16}
SHAPE |= {"head_dim": 64, "initializer_range": 0.02}
STEPS, PROBLEMS = 2, 8
CASES = {  # with the copies that must be there all the time
    "all weights": (None, "6: trainer, engine, reference, gradients, moments"),
    "an adapter": ({"rank": 8}, "2: trainer, engine"),
}


def main() -> None:
    problems = [p for p in arithmetic.embedded_problems(0) if p.split == "train"][: PROBLEMS * STEPS]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(Problem, folder / "problems.parquet", problems)
        policies = [_write_policy(folder / str(layers), layers) for layers in LAYERS]
        small, large = (BYTES * (parameters_of(policy) or 0) for policy in policies)
        for case, (adapter, held) in CASES.items():
            peaks = [_peak(folder / f"{case} {policy.name}", policy, adapter, folder) for policy in policies]
            copies = (peaks[1] - peaks[0]) / (large - small)
            rows.append([case, *(f"{peak / 2**20:,.0f} MiB" for peak in peaks), f"{copies:.2f}", held])
    sizes = [f"peak at {size / 2**20:,.0f} MiB" for size in (small, large)]
    show("The program of RLHF, two steps in float32", ["trained", *sizes, "copies", "always there"], rows)


def _write_policy(folder: Path, layers: int) -> Path:
    from models.loading import load_config, load_tokenizer, random_weights

    folder.mkdir()
    told = json.loads((BASE / "config.json").read_text())
    told |= SHAPE | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(told))
    random_weights(load_config(folder, "refuse"), "refuse").save_pretrained(folder)
    load_tokenizer(BASE, "refuse").save_pretrained(folder)
    return folder


def _peak(folder: Path, policy: Path, adapter: dict[str, int] | None, parent: Path) -> int:
    """Peak bytes of the program's processes."""
    folder.mkdir()
    train = {"steps": STEPS, "problems": PROBLEMS, "batch_size": PROBLEMS, "dtype": "float32", "adapter": adapter}
    program = OnPolicyProgram(
        policy=policy,
        reference=policy,
        state=None,
        problems=parent / "problems.parquet",
        output=folder / "policy",
        seed=1,
        sampling=OnPolicySamplingConfig(max_tokens=16, dtype="float32"),
        judged_by=REWARDS,
        engine=EngineConfig(max_num_seqs=8),
        train=PPOConfig.model_validate(train | {"epochs": 1, "value_from": "policy"}),
        launch=LaunchConfig(micro_batch_size=1),
        value=BASE,
        first_step=0,
        total_steps=STEPS,
    )
    (folder / "train.json").write_text(program.model_dump_json())
    command = launch_command(ON_POLICY, program.launch, folder / "train.json")
    return run_measured(command, child_environment(), watch_memory=True).peak_bytes
