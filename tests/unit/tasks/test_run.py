"""A run: planning does nothing, the directory has one holder, inputs are verified before they are read."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.stage.contract import Artifact, CorruptStageError, OnDrift, Outcome, Stage, Status
from tasks.stage.run import Result, Run, RunDirectoryError, RunInUseError, check_writable, open_run

Work = Callable[[Path], Outcome]

HOLDER = """
import sys
from pathlib import Path
from tasks.stage.contract import OnDrift
from tasks.stage.run import open_run
with open_run(Path(sys.argv[1]), {"run": "held"}, OnDrift.REFUSE):
    print("held", flush=True)
    sys.stdin.read()
"""


def first_stage(seed: int = 0) -> Stage:
    return Stage("iter-1/generate", 1, {"samples": 4}, {}, seed)


def second_stage(samples: Artifact) -> Stage:
    return Stage("iter-1/score", 1, {}, {"samples": samples})


def write(name: str, content: str) -> Work:
    def work(attempt: Path) -> Outcome:
        (attempt / name).parent.mkdir(parents=True, exist_ok=True)
        (attempt / name).write_text(content)
        return Outcome()

    return work


def no_work(attempt: Path) -> Outcome:
    pytest.fail("work was done")


def two_stages(run: Run, work: Work | None = None, seed: int = 0) -> list[Result]:
    first = run.execute(first_stage(seed), work or write("samples/0.parquet", "samples"))
    return [first, run.execute(second_stage(first.artifact("samples")), work or write("scores.parquet", "scores"))]


@contextmanager
def another_process_holds(directory: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(directory)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        holder.kill()
        holder.communicate()


def test_planning_records_every_stage_and_does_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", planning=True)
    results = two_stages(run, no_work)
    assert [(p.stage.name, p.status) for p in run.plan] == [
        ("iter-1/generate", Status.RUN),
        ("iter-1/score", Status.RUN),
    ]
    assert [result.finished for result in results] == [None, None]
    assert results[0].artifact("samples") == Artifact(tmp_path / "run" / "iter-1" / "generate" / "samples", None)
    assert list(tmp_path.iterdir()) == []


def test_planning_says_what_would_be_reused_and_what_is_open(tmp_path: Path) -> None:
    two_stages(Run(tmp_path))
    unchanged = Run(tmp_path, planning=True)
    two_stages(unchanged, no_work)
    assert [p.status for p in unchanged.plan] == [Status.REUSE, Status.REUSE]
    assert all(p.finished for p in unchanged.plan)
    changed = Run(tmp_path, planning=True)
    two_stages(changed, no_work, seed=1)
    assert [p.status for p in changed.plan] == [Status.DRIFT, Status.OPEN]
    accepted = Run(tmp_path, planning=True, on_drift=OnDrift.ACCEPT)
    two_stages(accepted, no_work, seed=1)
    assert [p.status for p in accepted.plan] == [Status.DRIFT, Status.REUSE]


def test_a_run_executes_its_stages_and_a_second_start_reuses_them(tmp_path: Path) -> None:
    run = Run(tmp_path, ids={"prefect": "p-1"})
    generated, scored = two_stages(run)
    assert (scored.path / "scores.parquet").read_text() == "scores"
    assert generated.finished is not None
    assert generated.finished.manifest.runs == {"prefect": "p-1"}
    assert [r.finished.reused for r in two_stages(Run(tmp_path), no_work) if r.finished] == [True, True]
    assert run.plan == []


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[3] ^= 4
    file.write_bytes(content)


def test_a_corrupt_input_is_found_before_the_stage_that_reads_it_runs(tmp_path: Path) -> None:
    generated = Run(tmp_path).execute(first_stage(), write("samples/0.parquet", "samples"))
    flip_a_bit(generated.path / "samples" / "0.parquet")
    run = Run(tmp_path)
    again = run.execute(first_stage(), no_work)
    with pytest.raises(CorruptStageError, match=r"samples/0\.parquet .*, so iter-1/generate cannot be reused"):
        run.execute(second_stage(again.artifact("samples")), no_work)
    assert not (tmp_path / "iter-1" / "score").exists()


def test_a_corrupt_input_is_found_also_where_only_a_single_file_of_a_stage_is_read(tmp_path: Path) -> None:
    generated = Run(tmp_path).execute(first_stage(), write("samples.parquet", "samples"))
    flip_a_bit(generated.path / "samples.parquet")
    with pytest.raises(CorruptStageError, match=r"samples\.parquet"):
        Run(tmp_path).execute(second_stage(generated.artifact("samples.parquet")), no_work)


def test_under_rebuild_a_corrupt_stage_is_planned_and_made_anew_and_what_follows_is_kept(tmp_path: Path) -> None:
    generated, _ = two_stages(Run(tmp_path))
    flip_a_bit(generated.path / "samples" / "0.parquet")
    plan = Run(tmp_path, planning=True, on_drift=OnDrift.REBUILD)
    two_stages(plan, no_work)
    assert [p.status for p in plan.plan] == [Status.RUN, Status.OPEN]
    rebuilt = Run(tmp_path, on_drift=OnDrift.REBUILD)
    again = rebuilt.execute(first_stage(), write("samples/0.parquet", "samples"))
    kept = rebuilt.execute(second_stage(again.artifact("samples")), no_work)
    assert kept.finished is not None and kept.finished.reused
    assert (again.path / "samples" / "0.parquet").read_text() == "samples"


def test_an_input_from_outside_the_run_is_not_looked_into(tmp_path: Path) -> None:
    outside = tmp_path / "problems.jsonl"
    outside.write_text("{}")
    finished = Run(tmp_path / "run").execute(second_stage(Artifact(outside, "d1")), write("scores.parquet", "s"))
    assert (finished.path / "scores.parquet").exists()


def test_a_second_process_is_refused_at_once_with_who_holds_the_run(tmp_path: Path) -> None:
    with another_process_holds(tmp_path) as holder:
        started = time.monotonic()
        with pytest.raises(RunInUseError) as refused, open_run(tmp_path, {"run": "second"}, OnDrift.REFUSE):
            pytest.fail("the run was entered twice")
        assert time.monotonic() - started < 2
        for words in (str(tmp_path), f"process {holder.pid}", "since", "Wait for it, stop it", "--run"):
            assert words in str(refused.value)
        assert json.loads((tmp_path / "config.json").read_text()) == {"run": "held"}


@pytest.mark.parametrize("note", [b"", b'{"pid": 1', b"[]", b"7", b"\xff"])
def test_who_holds_a_run_need_not_be_readable(tmp_path: Path, note: bytes) -> None:
    with open_run(tmp_path, {}, OnDrift.REFUSE):
        (tmp_path / "lock.json").write_bytes(note)
        with (
            pytest.raises(RunInUseError, match="is in use by another process"),
            open_run(tmp_path, {}, OnDrift.REFUSE),
        ):
            pytest.fail("the run was entered twice")


@pytest.mark.parametrize("directory", ["", "new", "new/deep"])
def test_a_run_directory_that_can_be_written_passes_and_nothing_is_left_there(tmp_path: Path, directory: str) -> None:
    check_writable(tmp_path / directory)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("directory", ["file", "file/run", "dangling", "dangling/run", "x" * 300])
def test_a_run_directory_that_cannot_be_made_is_refused_with_the_ways_on(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(RunDirectoryError, match="Choose another --runs-dir or --run name") as refused:
        check_writable(tmp_path / directory)
    assert str(tmp_path / directory) in str(refused.value)


def test_a_killed_holder_does_not_keep_the_run(tmp_path: Path) -> None:
    with another_process_holds(tmp_path) as holder:
        holder.kill()
        holder.wait()
        with open_run(tmp_path, {"run": "second"}, OnDrift.ACCEPT) as run:
            assert (run.directory, run.on_drift, run.planning) == (tmp_path, OnDrift.ACCEPT, False)
            assert json.loads((tmp_path / "config.json").read_text()) == {"run": "second"}


def test_a_run_that_ended_in_an_error_can_be_opened_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_run(tmp_path, {}, OnDrift.REFUSE):
        raise ZeroDivisionError
    with open_run(tmp_path, {}, OnDrift.REFUSE) as run:
        assert run.directory == tmp_path
