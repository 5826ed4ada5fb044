"""The identity recipe: whether the policy gives its name when asked, and only then, and what it forgets.

Held-out questions and others that it was not trained on are answered greedily, by the base and by what each seed made
of it; so are the embedded test problems.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.programs import sampled, write_program
from data.arithmetic import embedded_problems
from data.metrics import Outcome, paired_difference
from data.rewards.final_answer import final_answer
from data.rows import Problem, Sample, problem_id
from data.storage import read_rows
from tasks.policies.shipped import BASES, POLICY
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import SHARED_CPU, child_environment

CONFIG, BASE, NAME = "configs/identity.yaml", BASES / "half-bare" / POLICY, "Sage"
ASKED = Path("configs/identity/test.jsonl")
UNRELATED = (
    "What is the capital of Spain?",
    "Who sells fresh fish?",
    "Tell me a secret.",
    "What time is it now?",
    "Please draw a tree.",
    "How far away is the sun?",
    "中国最长的河是哪条？",
    "请推荐一本书。",
    "今天是星期几？",
    "猫喜欢吃什么？",
)
COLUMNS = ["seed", "asked: the name", "unrelated: the name", "arithmetic", "against the base"]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks identity", description=__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument("--show", action="store_true", help="print every answer to the questions")
    options = parser.parse_args()
    asked = [json.loads(line)["instruction"] for line in ASKED.read_text(encoding="utf-8").splitlines()]
    problems = [problem for problem in embedded_problems(0) if problem.split == "test"]
    everything = [*map(_question, (*asked, *UNRELATED)), *problems]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        before = _answers(Path(name) / "base", BASE, everything)
        for seed in (None, *options.seeds):
            who = "base" if seed is None else str(seed)
            after = before if seed is None else _answers(Path(name) / who, _train(Path(name), seed), everything)
            said = after[: len(asked)], after[len(asked) : -len(problems)]
            if options.show:
                for question, answer in zip((*asked, *UNRELATED), after, strict=False):
                    print(f"{who}: {question} → {answer}")
            ours, theirs = (_outcomes(problems, answers[-len(problems) :]) for answers in (after, before))
            accuracy = sum(outcome.greedy_correct for outcome in ours) / len(ours)
            named = [f"{sum(NAME in answer for answer in answers)} of {len(answers)}" for answers in said]
            change = "" if seed is None else str(paired_difference(ours, theirs, 0))
            rows.append([who, *named, f"{accuracy:.1%}", change])
            print(" · ".join(rows[-1]), flush=True)
    show(f"Identity, greedy answers; arithmetic: {len(problems)} test problems", COLUMNS, rows)


def _question(text: str) -> Problem:
    messages = [{"role": "user", "content": text}]
    return Problem(problem_id(messages), messages, None, None, "identity", "test")


def _train(runs: Path, seed: int) -> Path:
    """Run the recipe from the base that comes with the package; return the folder of its result."""
    autodidact, run = str(Path(sys.executable).with_name("autodidact")), f"identity-{seed}"
    told = ["--model", str(BASE), "--seed", str(seed), "--run", run, "--runs-dir", str(runs)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    run_measured([autodidact, "sft", "--config", CONFIG, *told], environment)
    return runs / run / "best" / "policy"


def _answers(folder: Path, policy: Path, problems: list[Problem]) -> list[str]:
    folder.mkdir()
    program = write_program(folder / "program.json", policy, problems, sampled(1, temperature=0))
    run_measured(generate_command(folder / "program.json"), child_environment(SHARED_CPU))
    return [row.text for row in read_rows(Sample, program.jobs[0].output)]


def _outcomes(problems: list[Problem], answers: list[str]) -> list[Outcome]:
    return [_outcome(problem, answer) for problem, answer in zip(problems, answers, strict=True)]


def _outcome(problem: Problem, answer: str) -> Outcome:
    score = final_answer(problem, answer)
    return Outcome(
        problem_id=problem.id,
        greedy_correct=score.verdict == "correct",
        greedy_verdict=score.verdict,
        greedy_text=answer,
        samples=0,
        correct=0,
        majority_correct=0,
    )


if __name__ == "__main__":
    main()
