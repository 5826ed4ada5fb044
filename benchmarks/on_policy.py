"""On-policy learning: sampling inside the trainer against an engine alone, and what a step spends its time on.

Both answer as many problems of the embedded set with as many answers, a step's requests together. The engine alone is
the one that the stage `generate` starts, and surrounded as there; its start is left out. It answers the same requests,
which ask for log-probabilities. Both in turn, some rounds; what counts is the median of the rounds' ratios.
"""

import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.programs import sampled, write_program
from data import arithmetic
from data.rows import Problem
from data.storage import read_rows
from models.config import EngineConfig, GenerateProgram, LaunchConfig
from models.launch import ON_POLICY, launch_command
from models.on_policy import GroupsConfig, JudgedBy, OnPolicyProgram, OnPolicySamplingConfig
from tasks.policies.shipped import BASES, POLICY
from tasks.stage.environment import SHARED_CPU, child_environment

ROUNDS = 5
PROBLEMS, SAMPLES, STEPS, WARM = 64, 8, 12, 2  # the first steps warm up
PARTS = ("sampling", "scoring", "training", "other")
BASE, ENGINE = BASES / "half-bare" / POLICY, EngineConfig(max_num_seqs=512)
REWARDS = JudgedBy(
    graders={"final_answer": "final_answer"}, combination=None, isolation="limits", workers=1, max_error_share=0.01
)


def main() -> None:
    problems = [p for p in arithmetic.embedded_problems(0) if p.split == "train"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        several = problems[: PROBLEMS * STEPS]
        write_program(folder / "generate.json", BASE, several, sampled(SAMPLES, temperature=1.0), ENGINE)
        command = [sys.executable, "-m", "benchmarks.on_policy", str(folder / "generate.json")]
        alone, inside, told = list[float](), list[float](), list[dict[str, float]]()
        for number in range(ROUNDS):
            alone.append(float(run_measured(command, child_environment(SHARED_CPU)).output.split()[-1]))
            steps = _learn(folder / str(number), folder / "generate.parquet")[WARM:]
            tokens = sum(step["tokens_per_second"] * step["seconds/sampling"] for step in steps)
            inside.append(tokens / sum(step["seconds/sampling"] for step in steps))
            told += steps
    ratios = [one / other for one, other in zip(inside, alone, strict=True)]
    parts = {part: sum(step[f"seconds/{part}"] for step in told) for part in PARTS}
    whole = sum(parts.values())
    neither = (parts["scoring"] + parts["other"]) / whole
    rows = [
        ["tokens/s, the engine of generate alone", _range(alone, ",.0f"), ""],
        ["tokens/s, inside the trainer", _range(inside, ",.0f"), ""],
        ["inside ÷ alone", _range(ratios, ".2f"), "≥ 0.9"],
        *([f"share of a step: {part}", f"{seconds / whole:.1%}", ""] for part, seconds in parts.items()),
        ["neither sampling nor training", f"{neither:.1%}", "≤ 5 %"],
    ]
    told_of = (
        f"{STEPS - WARM} steps of {PROBLEMS} problems × {SAMPLES} answers, {ROUNDS} rounds: median (least to most)"
    )
    show(told_of, ["what", "measured", "target"], rows)


def _range(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def measure(file: Path) -> None:
    """Print the tokens per second of an engine alone, which answers a step's requests after another's."""
    from data.render import prompt_token_ids, stop_token_ids
    from models.engine import Served, answers_in_order, start
    from models.loading import load_tokenizer
    from models.shards import engine_request

    program = GenerateProgram.model_validate_json(file.read_text())
    (job,), tokenizer = program.jobs, load_tokenizer(program.policy, program.model_code)
    problems = list(read_rows(Problem, job.problems))
    prompts, stop = [prompt_token_ids(tokenizer, p.messages) for p in problems], stop_token_ids(tokenizer)
    asked = [
        replace(engine_request(job, p.id, prompt, stop), log_probs=True)
        for p, prompt in zip(problems, prompts, strict=True)
    ]
    context = max(map(len, prompts)) + job.sampling.max_tokens
    engine = start(Served(program.policy, job.sampling.dtype, context, job.seed), program.engine)
    tokens, seconds = 0, 0.0
    for step in range(STEPS):
        begin = time.perf_counter()
        answers = answers_in_order(engine, asked[step * PROBLEMS :][:PROBLEMS])
        if step >= WARM:
            seconds += time.perf_counter() - begin
            tokens += sum(len(answer.token_ids) for of_it in answers for answer in of_it)
    print(tokens / seconds)


def _learn(folder: Path, problems: Path) -> list[dict[str, float]]:
    """The metrics of each step."""
    folder.mkdir()
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
        train=GroupsConfig.model_validate(train),
        launch=LaunchConfig(micro_batch_size=32),
        first_step=0,
        total_steps=STEPS,
    )
    (folder / "train.json").write_text(program.model_dump_json())
    run_measured(launch_command(ON_POLICY, program.launch, folder / "train.json"), child_environment())
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    measure(Path(sys.argv[1]))
