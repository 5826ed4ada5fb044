"""Sampling until enough answers are kept: tokens against the full budget, and that the same answers are selected.

Stub policies whose solve rates are spread over the problems like a beta distribution with few in the middle; then a
real policy in vLLM. The least possible is what is drawn if each next answer waits for the verdict on the last.
"""

import random
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.measure import run_measured, show
from benchmarks.programs import sampled, write_program
from data import arithmetic
from data.rewards.final_answer import final_answer
from data.rows import Example, Problem, Sample
from data.scoring import Tally, score_samples
from data.selection import select_examples
from data.storage import read_rows
from models.config import EngineConfig, UntilKept
from models.engine import Completion
from models.rounds import Rounds, scorers
from models.shards import missing_shards
from tasks.policies.shipped import BASES, POLICY
from tasks.rollouts.generate import generate_command
from tasks.stage.environment import SHARED_CPU, child_environment

SAMPLES, KEPT = 32, 10
STUB_PROBLEMS, PROBLEMS = 1000, 200
SOLVED = 0.3, 0.42, 0.6, 0.8  # on average; the second is PaLM 2-L's on MATH (arXiv 2312.06585, figure 2)
ENGINE = EngineConfig(shard_size=2048)
SPREAD = 1.5  # sum of the beta distribution's parameters


def main() -> None:
    rows = [_stub(mean) for mean in SOLVED]
    columns = ["problems solved", "answers", "tokens", "tokens ÷ all", "least possible", "the same selected"]
    show(f"Stub policies, {STUB_PROBLEMS:,} problems × {SAMPLES} answers, {KEPT} kept", columns, rows)
    columns = ["drawn until", "answers", "tokens", "tokens ÷ all", "seconds ÷ all", "selected"]
    show(f"Embedded problems in vLLM, {PROBLEMS:,} × {SAMPLES} answers that vary little", columns, _real())


def _until(scores: Path, kept: int) -> UntilKept:
    return UntilKept(
        kept=kept,
        min_reward=1.0,
        reward="final_answer",
        grader="final_answer",
        isolation="limits",
        workers=2,
        max_error_share=0.01,
        scores=scores,
    )


def _stub(mean: float) -> list[str]:
    rng = random.Random(0)
    rates = [rng.betavariate(SPREAD * mean, SPREAD * (1 - mean)) for _ in range(STUB_PROBLEMS)]
    problems = [Problem(f"{n}", [{"role": "user", "content": f"{n}"}], "1", None, "", "") for n in range(len(rates))]

    def answer(problem: int, seed: int) -> Completion:
        """A harder problem has longer answers."""
        drawn = random.Random(f"{problem}/{seed}")
        length = drawn.randint(100, 200) + round(200 * (1 - rates[problem]))
        right = drawn.random() < rates[problem]
        return Completion(f"{drawn.random()} #### {1 if right else 2}", [0] * length, "stop")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for output in ("all", "enough"):
            until = _until(folder / "scores", KEPT) if output == "enough" else None
            job = write_program(folder / f"{output}.json", folder, problems, sampled(SAMPLES, 1.0), ENGINE, until).jobs[
                0
            ]
            job.output.mkdir()
            missing = missing_shards(job)
            with scorers(missing) as processes:
                rounds = Rounds(missing, {p.id: [n] for n, p in enumerate(problems)}, [], "", processes)
                for number, request in enumerate(rounds.requests()):
                    assert request is not None and request.seed is not None
                    seeds = range(request.seed, request.seed + request.samples)
                    rounds.take(number, [answer(request.prompt[0], seed) for seed in seeds])
        whole, drawn = (list(read_rows(Sample, folder / output)) for output in ("all", "enough"))
    share = _tokens(drawn) / _tokens(whole)
    least = _tokens(_least(problems, whole)) / _tokens(whole)
    same = "yes" if _selected(problems, drawn, KEPT) == _selected(problems, whole, KEPT) else "NO"
    return [f"{mean:.0%}", f"{len(drawn):,}", f"{_tokens(drawn):,}", f"{share:.2f}", f"{least:.2f}", same]


def _real() -> Iterator[list[str]]:
    with tempfile.TemporaryDirectory() as name:
        folder, policy = Path(name), BASES / "half-bare" / POLICY
        problems = [p for p in arithmetic.embedded_problems(0) if p.split == "train"][:PROBLEMS]
        all_of_it: list[Sample] = []
        seconds = dict[int | None, float]()
        for kept in (None, KEPT, 1):
            file, until = folder / f"kept-{kept}.json", _until(folder / f"scores-{kept}", kept) if kept else None
            program = write_program(file, policy, problems, sampled(SAMPLES, temperature=0.7), ENGINE, until)
            seconds[kept] = run_measured(generate_command(file), child_environment(SHARED_CPU)).seconds
            drawn = list(read_rows(Sample, program.jobs[0].output))
            all_of_it = all_of_it or drawn
            selected = _selected(problems, drawn, kept or KEPT)
            assert selected == _selected(problems, all_of_it, kept or KEPT), "another selection"
            shares = _tokens(drawn) / _tokens(all_of_it), seconds[kept] / seconds[None]
            counts = [f"{count:,}" for count in (len(drawn), _tokens(drawn))]
            until = f"{kept} kept" if kept else "the budget ends"
            yield [until, *counts, *(f"{share:.2f}" for share in shares), f"{len(selected):,}"]


def _tokens(samples: Iterable[Sample]) -> int:
    return sum(len(sample.token_ids) for sample in samples)


def _selected(problems: list[Problem], samples: list[Sample], most: int) -> list[Example]:
    scores = score_samples(problems, samples, final_answer, "", Tally())
    return list(select_examples(problems, samples, scores, 1.0, most, Counter()))


def _least(problems: list[Problem], samples: list[Sample]) -> Iterator[Sample]:
    """The answers up to the last that is selected, or all if too few are."""
    kept, last = Counter[str](), dict[str, int]()
    for example in _selected(problems, samples, KEPT):
        kept[example.problem_id] += 1
        last[example.problem_id] = example.index
    for sample in samples:
        if kept[sample.problem_id] < KEPT or sample.index <= last[sample.problem_id]:
            yield sample


if __name__ == "__main__":
    main()
