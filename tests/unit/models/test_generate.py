"""Generation without weights: shards that are kept and made again, and the one batch that all of them share."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import models.engine.vllm
import models.generate
from data.rows import Problem, Sample
from data.storage import read_rows, write_rows
from models.config import EngineConfig, GenerateJob, GenerateProgram, SamplingConfig
from models.engine import Completion, Request, answers_in_order
from models.engine.vllm import VLLM
from models.shards import missing_shards
from tasks.policies.shipped import BASES, POLICY

PROBLEMS = [Problem(f"p{n}", [{"role": "user", "content": str(n)}], "1", None, "", "train") for n in range(10)]


@pytest.fixture
def job(tmp_path: Path) -> GenerateJob:
    """Ten problems, two answers each, four problems in a shard: p0…p3, p4…p7, p8 and p9."""
    write_rows(Problem, tmp_path / "problems.parquet", PROBLEMS)
    (tmp_path / "samples").mkdir()
    return GenerateJob(
        problems=tmp_path / "problems.parquet",
        output=tmp_path / "samples",
        sampling=SamplingConfig(samples=2, max_tokens=8),
        seed=0,
        shard_size=8,
    )


def generate(job: GenerateJob) -> list[str]:
    """Write what is missing; return the names of the files that were."""
    missing = missing_shards(job)
    for shard in missing:
        rows = [Sample(p.id, i, "text", [1], "stop", "policy", i, "s") for p in shard.problems for i in range(2)]
        write_rows(Sample, shard.path, rows)
    return [shard.path.name for shard in missing]


def test_all_shards_are_missing_at_first_and_none_in_the_end(job: GenerateJob) -> None:
    assert generate(job) == ["000000.parquet", "000001.parquet", "000002.parquet"]
    assert generate(job) == []


@pytest.mark.parametrize("size", [0, 4, 200, -8], ids=["empty", "four bytes", "cut", "all but the end"])
def test_a_torn_shard_is_made_again_and_the_others_are_kept(job: GenerateJob, size: int) -> None:
    generate(job)
    shard = job.output / "000001.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:size])
    assert generate(job) == ["000001.parquet"]
    assert shard.read_bytes() == whole


@pytest.mark.parametrize("size", [4, 16], ids=["smaller", "larger"])
def test_shards_of_another_size_are_made_again_and_none_of_them_is_left(
    job: GenerateJob, tmp_path: Path, size: int
) -> None:
    generate(job)
    other = job.model_copy(update={"shard_size": size})
    generate(other)
    made = {file.name: file.read_bytes() for file in job.output.iterdir()}
    fresh = other.model_copy(update={"output": tmp_path / "fresh"})
    fresh.output.mkdir()
    generate(fresh)
    assert made == {file.name: file.read_bytes() for file in fresh.output.iterdir()}


def test_a_shard_with_too_few_answers_is_made_again(job: GenerateJob) -> None:
    generate(job)
    write_rows(Sample, job.output / "000002.parquet", [Sample("p8", 0, "text", [1], "stop", "policy", 0, "s")])
    assert generate(job) == ["000002.parquet"]


class LastFirst:
    """An engine that finishes the last request first; it notes which shards were there before each."""

    def __init__(self, output: Path) -> None:
        self.output, self.there = output, list[list[str]]()

    def stream(self, requests: Iterable[Request], meter: Any = None) -> Iterator[tuple[int, list[Completion]]]:
        for number, request in reversed(list(enumerate(requests))):
            self.there.append(sorted(file.stem for file in self.output.glob("*.parquet")))
            yield number, [Completion(f"{request.prompt[-2]}/{i}", [i], "stop") for i in range(request.samples)]


def test_a_shard_is_written_with_its_last_answer_in_the_order_of_its_problems(
    job: GenerateJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = LastFirst(job.output)
    monkeypatch.setattr(models.generate, "start", lambda *_: engine)
    program = GenerateProgram(policy=BASES / "half-bare" / POLICY, policy_digest="", jobs=[job], engine=EngineConfig())
    models.generate.generate(program)
    rows = list(read_rows(Sample, job.output))
    assert [(row.problem_id, row.index) for row in rows] == [(p.id, i) for p in PROBLEMS for i in range(2)]
    assert len({row.text for row in rows}) == 20  # each problem's own digit is in its prompt
    assert engine.there == [[]] * 2 + [["000002"]] * 4 + [["000001", "000002"]] * 4
    assert missing_shards(job) == []


class StepByStep:
    """As much of vLLM's engine as a stream uses: four answers are decoded together; the first of each request takes ten
    steps, the others one.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[str, int]] = []  # not yet finished, in order: request and index
        self.steps, self.drawn = dict[tuple[str, int], int](), dict[str, list[Any]]()
        self.samples, self.most, self.idle = dict[str, int](), 0, 0

    def add_request(self, name: str, prompt: dict[str, list[int]], parameters: Request) -> None:
        new = [(name, index) for index in range(parameters.samples)]
        self.answers += new
        self.steps |= {answer: 1 if answer[1] else 10 for answer in new}
        self.drawn[name], self.samples[name] = [], parameters.samples
        self.most = max(self.most, len(self.answers))

    def get_num_unfinished_requests(self) -> int:
        return len(self.answers)

    def has_unfinished_requests(self) -> bool:
        return bool(self.answers)

    def step(self) -> list[Any]:
        done, running = [], self.answers[:4]
        self.idle += 4 - len(running)
        for name, index in running:
            self.steps[name, index] -= 1
            if not self.steps[name, index]:
                self.answers.remove((name, index))
                self.drawn[name].append(
                    SimpleNamespace(index=index, text="", token_ids=[1], finish_reason="stop", logprobs=None)
                )
                if len(self.drawn[name]) == self.samples[name]:
                    done.append(SimpleNamespace(finished=True, request_id=name, outputs=self.drawn[name]))
        return done


def test_requests_are_taken_as_room_falls_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.engine.vllm, "sampling_parameters", lambda request: request)
    engine, taken = VLLM.__new__(VLLM), 0
    engine._engine, engine._room = StepByStep(), 8

    def requests() -> Iterator[Request]:
        nonlocal taken
        for _ in range(20):
            taken += 1
            yield Request([1], 3, 0.0, 8, None)

    for count, (_, answers) in enumerate(engine.stream(requests()), start=1):
        assert len(answers) == 3 and taken <= count + 8
    assert (count, taken) == (20, 20)
    assert engine._engine.most <= 8 + 2  # a request that has begun brings all of its answers
    assert engine._engine.idle < 20  # but for the end, all places are taken though a request waits for its longest
    several = answers_in_order(engine, [Request([1], n, 0.0, 8, None) for n in (9, 1, 3)])
    assert [len(drawn) for drawn in several] == [9, 1, 3]


def test_a_request_that_is_not_known_yet_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.engine.vllm, "sampling_parameters", lambda request: request)
    engine, answered = VLLM.__new__(VLLM), list[int]()
    engine._engine, engine._room = StepByStep(), 8

    def requests() -> Iterator[Request | None]:
        yield Request([1], 1, 0.0, 8, None)
        while not answered:
            yield None
        yield Request([1], 2, 0.0, 8, None)

    for number, _ in engine.stream(requests()):
        answered.append(number)
    assert answered == [0, 1]
