"""Rounds without an engine: how many answers each has, and that the order of finishing changes nothing."""

import os
import random
from pathlib import Path

import pytest

from data.files import file_sha256
from data.rows import Problem, Sample, Score
from data.scoring import TooManyErrorsError
from data.storage import parquet_files, read_rows, write_rows
from models.config import GenerateJob, SamplingConfig, UntilKept
from models.engine import Completion, Request
from models.rounds import Drawn, Rounds, ScorerError, scorers
from models.shards import Shard, missing_shards

PROBLEMS = [Problem(f"p{n}", [{"role": "user", "content": str(n)}], "1", None, "", "train") for n in range(12)]
SAMPLES, KEPT = 32, 10


@pytest.fixture
def job(tmp_path: Path) -> GenerateJob:
    """Twelve problems, four in a shard."""
    write_rows(Problem, tmp_path / "problems.parquet", PROBLEMS)
    return GenerateJob(
        problems=tmp_path / "problems.parquet",
        output=tmp_path / "samples",
        sampling=SamplingConfig(samples=SAMPLES, max_tokens=8),
        seed=0,
        shard_size=4 * SAMPLES,
        until=UntilKept(
            kept=KEPT,
            min_reward=1.0,
            reward="final_answer",
            grader="final_answer@1",
            isolation="limits",
            workers=1,
            max_error_share=0.01,
            scores=tmp_path / "scores",
        ),
    )


@pytest.mark.parametrize(
    ("drawn", "kept", "more"),
    [(0, 0, 10), (10, 10, 0), (10, 11, 0), (10, 9, 2), (10, 3, 7), (20, 9, 5), (30, 0, 2), (32, 0, 0)],
)
def test_a_round_has_what_is_missing_at_least_a_quarter_more_and_never_exceeds_the_budget(
    job: GenerateJob, drawn: int, kept: int, more: int
) -> None:
    problem = Drawn(Shard(job, PROBLEMS[:1], Path()), 0)
    problem.samples = [Sample("p0", i, "", [1], "stop", "", 0, "") for i in range(drawn)]
    problem.kept = {str(text) for text in range(kept)}
    assert problem.next_round == more


def answer(problem: int, seed: int) -> Completion:
    """Problem 0 is never solved, 11 always; some answers repeat others, some are cut off."""
    rng = random.Random(f"{problem}/{seed}")
    right = rng.random() < problem / 11
    return Completion(
        f"{rng.randint(1, 40)} #### {1 if right else 2}", [seed % 7], rng.choice(["stop"] * 9 + ["length"])
    )


def draw(job: GenerateJob, output: Path, order: random.Random) -> list[Request]:
    """Have everything drawn by an engine with room for ten requests that finishes any of them next."""
    job = job.model_copy(update={"output": output})
    output.mkdir()
    missing, prompts = missing_shards(job), {p.id: [number] for number, p in enumerate(PROBLEMS)}
    asked, open_ones = list[Request](), list[int]()
    with scorers(missing) as processes:
        rounds = Rounds(missing, prompts, [], "policy", processes)
        requests = rounds.requests()
        while True:
            while len(open_ones) < 10 and (request := next(requests, None)):
                asked.append(request)
                open_ones.append(len(asked) - 1)
            if not open_ones:
                break
            number = open_ones.pop(order.randrange(len(open_ones)))
            (problem,), seed = asked[number].prompt, asked[number].seed or 0
            rounds.take(number, [answer(problem, seed + index) for index in range(asked[number].samples)])
    assert missing_shards(job) == []
    return asked


def test_the_order_in_which_answers_finish_changes_no_file(job: GenerateJob, tmp_path: Path) -> None:
    asked = [draw(job, tmp_path / str(seed), random.Random(seed)) for seed in range(3)]
    files = [{file.name: file.read_bytes() for file in (tmp_path / str(seed)).iterdir()} for seed in range(3)]
    assert files[0] == files[1] == files[2] and len(files[0]) == 3
    drawn = [sum(request.samples for request in requests) for requests in asked]
    assert drawn[0] == drawn[1] == drawn[2] < 0.85 * SAMPLES * len(PROBLEMS)
    rows = list(read_rows(Sample, tmp_path / "0"))
    assert sum(row.problem_id == "p0" for row in rows) == SAMPLES
    assert sum(row.problem_id == "p11" for row in rows) < 20
    for shard in parquet_files(tmp_path / "0"):  # each with its scores
        samples, scores = read_rows(Sample, shard), read_rows(Score, tmp_path / f"scores/{file_sha256(shard)}.parquet")
        assert [(s.problem_id, s.index) for s in samples] == [(s.problem_id, s.index) for s in scores]


def test_a_shard_whose_scores_a_kill_prevented_is_made_again(job: GenerateJob, tmp_path: Path) -> None:
    draw(job, tmp_path / "samples", random.Random(0))
    shard = tmp_path / "samples" / "000002.parquet"
    (tmp_path / f"scores/{file_sha256(shard)}.parquet").unlink()
    assert [missing.path.name for missing in missing_shards(job)] == ["000002.parquet"]


def break_down(problem: Problem, text: str) -> Score:
    """A reward whose process dies."""
    os._exit(1)


def fail(problem: Problem, text: str) -> Score:
    """A reward that never works."""
    raise ValueError("broken")


@pytest.mark.parametrize(
    ("reward", "error", "says"),
    [("break_down", ScorerError, "has ended, perhaps killed"), ("fail", TooManyErrorsError, "The reward failed on")],
)
def test_a_reward_that_cannot_work_ends_sampling_early(
    job: GenerateJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reward: str, error: type[Exception], says: str
) -> None:
    assert job.until
    monkeypatch.setattr("models.rounds.ENOUGH_TO_TELL", 20)
    until = job.until.model_copy(update={"reward": f"tests.unit.models.test_rounds:{reward}"})
    with pytest.raises(error, match=says):
        draw(job.model_copy(update={"until": until}), tmp_path / "samples", random.Random(0))


def test_no_problem_is_begun_while_many_wait_for_their_verdicts(
    job: GenerateJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.rounds.MOST_JUDGED", 1)
    asked = draw(job, tmp_path / "samples", random.Random(0))
    monkeypatch.setattr("models.rounds.MOST_JUDGED", 256)
    assert len(asked) == len(draw(job, tmp_path / "again", random.Random(0)))
    assert [file.read_bytes() for file in sorted((tmp_path / "samples").iterdir())] == [
        file.read_bytes() for file in sorted((tmp_path / "again").iterdir())
    ]


def test_a_shard_with_any_number_of_answers_is_whole_unless_a_problem_is_missing(
    job: GenerateJob, tmp_path: Path
) -> None:
    draw(job, tmp_path / "samples", random.Random(0))
    shard = tmp_path / "samples" / "000001.parquet"
    rows = list(read_rows(Sample, shard))
    write_rows(Sample, shard, [row for row in rows if row.problem_id != "p5"])
    assert [missing.path.name for missing in missing_shards(job)] == ["000001.parquet"]
