"""On-policy learning: sampling inside the trainer against the stage `generate`, and what a step spends its time on.

Both answer as many problems of the embedded set with as many answers; engine starts are left out.
"""

import json
import re
import tempfile
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.programs import sampled, write_program
from data import arithmetic
from models.config import EngineConfig, LaunchConfig
from models.launch import ON_POLICY, launch_command
from models.on_policy import JudgedBy, OnPolicyConfig, OnPolicyProgram, OnPolicySamplingConfig
from tasks.policies.shipped import BASES, POLICY
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import SHARED_CPU, child_environment

PROBLEMS, SAMPLES, STEPS, WARM = 64, 8, 12, 2  # the first steps warm up
BASE, ENGINE = BASES / "half-bare" / POLICY, EngineConfig(max_num_seqs=512)
REWARDS = JudgedBy(
    graders={"final_answer": "final_answer"}, combination=None, isolation="limits", workers=1, max_error_share=0.01
)


def main() -> None:
    problems = [p for p in arithmetic.embedded_problems(0) if p.split == "train"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        several = problems[: PROBLEMS * (STEPS - WARM)]
        write_program(folder / "generate.json", BASE, several, sampled(SAMPLES, temperature=1.0), ENGINE)
        said = run_measured(generate_command(folder / "generate.json"), child_environment(SHARED_CPU)).output
        alone = float(re.findall(r"at ([\d,]+) tokens/s", said)[-1].replace(",", ""))
        told = _learn(folder, folder / "generate.parquet")
    steps = told[WARM:]
    inside = sum(step["tokens_per_second"] for step in steps) / len(steps)
    parts = {part: sum(step[f"seconds/{part}"] for step in steps) for part in ("sampling", "training", "other")}
    rows = [
        ["tokens/s, the stage generate", f"{alone:,.0f}", ""],
        ["tokens/s, inside the trainer", f"{inside:,.0f}", ""],
        ["inside ÷ stage", f"{inside / alone:.2f}", "≥ 0.9"],
        *([f"share of a step: {part}", f"{seconds / sum(parts.values()):.1%}", ""] for part, seconds in parts.items()),
    ]
    rows[-1][-1] = "≤ 5 %"
    show(f"{STEPS - WARM} steps of {PROBLEMS} problems × {SAMPLES} answers", ["what", "measured", "target"], rows)


def _learn(folder: Path, problems: Path) -> list[dict[str, float]]:
    """The metrics of each step."""
    train = {"steps": STEPS, "problems": PROBLEMS, "batch_size": 128, "dtype": "float32", "dynamic": False}
    program = OnPolicyProgram(
        policy=BASE,
        reference=BASE,
        state=None,
        problems=problems,
        output=folder / "policy",
        seed=1,
        sampling=OnPolicySamplingConfig.model_validate(sampled(SAMPLES, temperature=1.0).model_dump()),
        judged_by=REWARDS,
        engine=ENGINE,
        train=OnPolicyConfig.model_validate(train),
        launch=LaunchConfig(micro_batch_size=32),
        first_step=0,
        total_steps=STEPS,
    )
    (folder / "train.json").write_text(program.model_dump_json())
    run_measured(launch_command(ON_POLICY, program.launch, folder / "train.json"), child_environment())
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
