"""Shards of a generation that was stopped: those that are whole are kept, all others are made again."""

from pathlib import Path

import pytest

from data.rows import Problem, Sample
from data.storage import write_rows
from models.config import GenerateJob, SamplingConfig
from models.generate import missing_shards

PROBLEMS = [Problem(f"p{n}", [{"role": "user", "content": str(n)}], "1", None, "", "train") for n in range(10)]


@pytest.fixture
def job(tmp_path: Path) -> GenerateJob:
    """Ten problems, two answers each, four problems in a shard: p0…p3, p4…p7, p8 and p9."""
    write_rows(Problem, tmp_path / "problems.parquet", PROBLEMS)
    (tmp_path / "samples").mkdir()
    return GenerateJob(
        problems=tmp_path / "problems.parquet",
        output=tmp_path / "samples",
        sampling=SamplingConfig(samples=2),
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
