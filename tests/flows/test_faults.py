"""Full and read-only disks, damaged files, clocks set back: each is named in plain words, and a new start mends it."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import tasks.stage.run
from flows.commands.console import run_flow
from flows.commands.exits import ended_plainly
from flows.commands.flow_table import LoadedFlow
from flows.rest_em import RestEM, loop
from tasks.history.verify import verify_run
from tasks.loop.loop import run_loop
from tasks.stage import contract
from tasks.stage.contract import Finished, Outcome, Stage, read_manifest
from tests.flows.conftest import copy_runs, make_config, prepared, small
from tests.flows.stubs.common import fill
from tests.flows.test_rest_em import digests

# The flow without Prefect's server, which these faults are not about.
HERE = LoadedFlow(lambda config, policy: run_loop("ReST-EM", loop, config, policy), RestEM, loop)
NOBODY = 65534


def start(config: RestEM, on_drift: str = "refuse") -> int:
    """What the command does; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.commands.console.reach_servers", lambda runs: None)
        return ended_plainly(lambda: run_flow(HERE, config, False, on_drift))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> RestEM:
    """A finished run that nothing disturbed."""
    config = make_config(tmp_path_factory.mktemp("undisturbed"), iterations=1)
    with prepared(cache):
        assert start(config) == 0
    return config


@pytest.fixture(autouse=True)
def environment(undisturbed: RestEM, folders: None, processes: None) -> None:
    """Stub programs, which meet a full disk as real ones do: in a process of their own."""


@pytest.fixture
def finished(tmp_path: Path, undisturbed: RestEM) -> RestEM:
    """A copy of the finished run, to be damaged."""
    copy_runs(undisturbed, tmp_path)
    return make_config(tmp_path, iterations=1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def write_protect() -> Iterator[Callable[[Path], None]]:
    """Makes a folder read-only, also for root."""
    protected = []

    def make(folder: Path) -> None:
        mount("--bind", folder, folder)
        protected.append(folder)
        mount("-o", "remount,bind,ro", folder)

    yield make
    for folder in protected:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"not tested, since nothing may be mounted here: {done.stderr.strip()}")


def made_again(config: RestEM, undisturbed: RestEM) -> set[str]:
    """The stages that were made since the run was copied."""
    return {
        name
        for name in digests(config)
        if read_manifest(config.directory / name).started != read_manifest(undisturbed.directory / name).started
    }


def remove(config: RestEM, *stages: str) -> None:
    for stage in stages:
        shutil.rmtree(config.directory / stage)


# When the disk fills up, and what stops: what is recorded of an iteration can wait, so the next stage stops.
FULL = [
    ("problems", "before", "problems"),
    ("base", "before", "base"),
    ("iter-0/evaluate", "program", "iter-0/evaluate"),
    ("iter-0/evaluate", "published", "iter-1/generate"),
    ("iter-1/generate", "program", "iter-1/generate"),
    ("iter-1/score", "before", "iter-1/score"),
    ("iter-1/select", "before", "iter-1/select"),
    ("iter-1/train", "program", "iter-1/train"),
    ("iter-1/evaluate", "after", "iter-1/evaluate"),
    ("best", "before", "best"),
    ("final/best", "program", "final/best"),
    ("final/best", "published", "report"),
]


def fill_disk(patch: pytest.MonkeyPatch, stage: str, when: str, ballast: Path) -> None:
    """Fill the disk before a stage's work, in its program, after the work, or when the stage is published.

    After the work only the manifest is to be written; after the stage, what is recorded of it.
    """
    patch.setenv("STUB_BALLAST", str(ballast))
    if when == "program":
        patch.setenv("STUB_FILL", stage)
    original = tasks.stage.run.run_stage

    def run_stage(directory: Path, todo: Stage, work: Any, *rest: Any, **more: Any) -> Finished:
        def now(moment: str) -> None:
            if (todo.name, moment) == (stage, when):
                fill(ballast)

        def disturbed(attempt: Path) -> Outcome:
            now("before")
            outcome: Outcome = work(attempt)
            now("after")
            return outcome

        made = original(directory, todo, disturbed, *rest, **more)
        now("published")
        return made

    patch.setattr(tasks.stage.run, "run_stage", run_stage)


def test_a_disk_that_is_full_in_every_stage_once_is_named_and_the_run_ends_like_an_undisturbed_one(
    disk, undisturbed, monkeypatch, capsys
):
    config, ballast = make_config(disk, iterations=1), disk / "ballast"
    monkeypatch.setattr("tasks.loop.preflight.check_disk", lambda *_: None)  # the disk fills up later than that looks
    for stage, when, stopped in FULL:
        with monkeypatch.context() as patch:
            fill_disk(patch, stage, when, ballast)
            code = start(config)
        said = capsys.readouterr().err
        assert code == 1, f"{stage}, {when}: {said}"
        what = config.directory if stopped == "report" else stopped
        for words in (
            f"autodidact: {what} stopped: a disk is full.",
            f"The one mounted at {disk} has the least space: 0.00 GB of 0.03 GB are free.",
            "Free some space there and run the same command again",
            "No space left on device",
        ):
            assert words in said, f"{stage}, {when}"
        assert (config.directory / stage).exists() == (when == "published")
        assert stopped == "report" or not (config.directory / stopped).exists()
        assert stage == "problems" or verify_run(config.directory) == []
        ballast.unlink()
    assert start(config) == 0
    assert digests(config) == digests(undisturbed)
    assert verify_run(config.directory) == []


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    """Turn one bit, in place."""
    with file.open("r+b") as content:
        content.seek(file.stat().st_size // 2)
        byte = content.read(1)[0]
        content.seek(-1, os.SEEK_CUR)
        content.write(bytes([byte ^ 4]))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def age(file: Path) -> None:
    """Leave a manifest as another version could have written it."""
    content = json.loads(file.read_text())
    del content["outputs"]
    file.write_text(json.dumps(content | {"files": []}))


DAMAGED = [
    (cut, "iter-1/generate/samples/000001.parquet", "bytes instead of", {"iter-1/generate"}),
    (cut, "problems/train.parquet", "bytes instead of", {"problems"}),
    (Path.unlink, "iter-1/score/tally.json", "is missing", {"iter-1/score"}),
    (empty, "iter-1/select/manifest.json", "is not complete JSON", {"iter-1/select"}),
    (cut, "iter-1/train/manifest.json", "is not complete JSON", {"iter-1/train"}),
    (age, "best/manifest.json", "is damaged, or of another version of Autodidact (outputs: ", {"best"}),
]


@pytest.mark.parametrize(
    ("damage", "name", "says", "stages"), DAMAGED, ids=[f"{d[0].__name__} {d[1]}" for d in DAMAGED]
)
def test_a_damaged_stage_is_refused_at_once_and_made_again_only_on_request(
    finished, undisturbed, capsys, damage, name, says, stages
):
    file, before = finished.directory / name, digests(undisturbed)
    damage(file)
    left = file.read_bytes() if file.exists() else None
    assert start(finished) == 2
    said = capsys.readouterr().err
    for words in (f"autodidact: {file} ", says, "Nothing was deleted", "--on-drift rebuild"):
        assert words in said
    assert (file.read_bytes() if file.exists() else None) == left
    assert start(finished, "rebuild") == 0
    assert digests(finished) == before
    assert made_again(finished, undisturbed) == stages
    assert verify_run(finished.directory) == []


def test_a_flipped_bit_is_found_when_the_file_is_next_read_or_when_all_are_verified(finished, undisturbed, capsys):
    file = finished.directory / "iter-1/generate/samples/000001.parquet"
    flip(file)
    assert start(finished) == 0  # by its size the stage is complete, and nothing reads it
    assert verify_run(finished.directory) == [
        f"{file} was changed after it was written (its SHA-256 differs from manifest.json), so iter-1/generate "
        f"cannot be reused."
    ]
    remove(finished, "iter-1/score")
    assert start(finished) == 2
    said = capsys.readouterr().err
    for words in (f"autodidact: {file} was changed after", "iter-1/generate", "--on-drift rebuild"):
        assert words in said
    assert start(finished, "rebuild") == 0
    assert digests(finished) == digests(undisturbed)
    assert made_again(finished, undisturbed) == {"iter-1/generate", "iter-1/score"}


def test_a_flipped_bit_in_a_policy_is_in_both_places_that_share_it_and_both_are_mended(finished, undisturbed):
    for name in ("iter-1/train", "base"):
        flip(finished.directory / name / "policy" / "skill.json")
    damages = verify_run(finished.directory)
    assert [Path(damage.split(" ")[0]).relative_to(finished.directory).parts[0] for damage in damages] == [
        "base",
        "best",
        "iter-1",
    ]
    assert start(finished, "rebuild") == 0
    assert made_again(finished, undisturbed) == {"base", "iter-1/train", "best"}
    assert digests(finished) == digests(undisturbed)
    assert verify_run(finished.directory) == []


def test_a_flipped_bit_in_what_only_the_report_reads_is_named_too(finished, undisturbed, capsys):
    file = finished.directory / "iter-0/evaluate/validation/metrics.json"
    content = file.read_bytes()
    file.write_bytes(b"[" + content[1:])
    remove(finished, "final/best")
    assert start(finished) == 2
    said = capsys.readouterr().err
    for words in (f"autodidact: {file} was changed after", "Nothing was deleted", "--on-drift rebuild"):
        assert words in said
    assert start(finished, "rebuild") == 0
    assert made_again(finished, undisturbed) == {"iter-0/evaluate", "final/best"}


def test_a_torn_shard_of_an_unfinished_stage_is_made_again(finished, undisturbed, monkeypatch):
    remove(finished, "iter-1/generate")
    with monkeypatch.context() as patch:
        patch.setenv("STUB_CRASH", "iter-1/generate")
        assert start(finished) == 1
    shard = finished.directory / "iter-1/.generate.attempt/samples/000000.parquet"
    cut(shard)
    assert start(finished) == 0
    assert digests(finished) == digests(undisturbed)
    assert made_again(finished, undisturbed) == {"iter-1/generate"}


def test_a_clock_that_is_set_back_again_and_again_changes_neither_results_nor_durations(
    finished, undisturbed, monkeypatch
):
    remove(finished, "iter-1/score", "iter-1/evaluate", "best")
    times = iter([datetime.fromisoformat("2001-01-01T12:00:00+00:00") - timedelta(hours=n) for n in range(10)])
    monkeypatch.setattr(contract, "_now", lambda: next(times))
    assert start(finished) == 0
    assert digests(finished) == digests(undisturbed)
    manifests = [read_manifest(finished.directory / name) for name in ("iter-1/score", "iter-1/evaluate", "best")]
    assert [m.started[:16] for m in manifests] == ["2001-01-01T12:00", "2001-01-01T11:00", "2001-01-01T10:00"]
    assert all(0 <= m.seconds < 60 for m in manifests)
    assert start(finished) == 0  # the same process reads again what was written when it was later


def test_files_that_seem_to_come_from_the_future_are_reused(finished, undisturbed, monkeypatch):
    for file in finished.directory.rglob("*"):
        os.utime(file, (4e9, 4e9))
    monkeypatch.setattr(tasks.stage.run, "run_stage", lambda *_: pytest.fail("a stage was looked at again"))
    assert start(finished) == 0
    assert verify_run(finished.directory) == []


@pytest.mark.parametrize("content", [b"", b'{"pid": 12, "ho', b"[]", b'"\xff\xfe"'])
def test_torn_files_beside_the_stages_are_written_anew(finished, undisturbed, content):
    names = ("lock.json", "config.json", "summary.json")
    for name in names:
        (finished.directory / name).write_bytes(content)
    assert start(finished) == 0
    assert not (finished.directory / "lock.json").exists()
    for name in names[1:]:
        assert json.loads((finished.directory / name).read_text()).keys() == keys(undisturbed, name)
    assert made_again(finished, undisturbed) == set()


def keys(config: RestEM, name: str) -> Any:
    return json.loads((config.directory / name).read_text()).keys()


def test_a_torn_list_of_mlflow_runs_does_not_keep_the_run_from_going_on(finished, undisturbed):
    (finished.directory / "mlflow.json").write_text('{"parent": "3')
    remove(finished, "final/best")
    assert start(finished) == 0
    assert digests(finished) == digests(undisturbed)


def refused(config: RestEM, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line in which a start is refused before any file is read."""
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("tasks.loop.preflight.look_ahead", lambda *_: pytest.fail("something was done first"))
        assert start(config) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize(
    ("runs", "file"),
    [("runs", "runs"), ("notes.txt/deep/runs", "notes.txt"), ("runs", "runs/stub")],
    ids=["runs_dir is a file", "a parent is a file", "the run is a file"],
)
def test_a_path_that_leads_through_a_file_is_refused(tmp_path, monkeypatch, capsys, runs, file):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("not a folder")
    said = refused(RestEM.model_validate(small(tmp_path) | {"runs_dir": tmp_path / runs}), monkeypatch, capsys)
    assert f"{tmp_path / runs / 'stub'} cannot be the run's folder, because {tmp_path / file} is not a folder." in said
    assert "Choose another --runs-dir or --run name" in said


@pytest.mark.parametrize("there", [False, True], ids=["no run yet", "a run to go on with"])
def test_a_disk_that_can_only_be_read_is_refused(tmp_path, write_protect, monkeypatch, capsys, there):
    config = make_config(tmp_path)
    if there:
        config.directory.mkdir(parents=True)
    write_protect(config.directory if there else tmp_path)
    said = refused(config, monkeypatch, capsys)
    assert f"The run's folder {config.directory} cannot be written: Read-only file system." in said
    assert "Choose another --runs-dir or --run name, or check the disk and the folder's permissions" in said


def test_a_disk_that_can_only_be_read_from_the_middle_of_a_run_on_is_named(
    finished, write_protect, monkeypatch, capsys
):
    remove(finished, "best")
    original = tasks.stage.run.run_stage

    def run_stage(directory: Path, todo: Stage, *rest: Any, **more: Any) -> Finished:
        if todo.name == "best":
            write_protect(directory)
        return original(directory, todo, *rest, **more)

    monkeypatch.setattr(tasks.stage.run, "run_stage", run_stage)
    assert start(finished) == 1
    said = capsys.readouterr().err
    stopped = f"autodidact: best stopped: {finished.directory} is on a read-only disk"
    for words in (stopped, "make it writable and run the same command again", "Read-only file system"):
        assert words in said


@pytest.mark.parametrize("what", ["folder", "lock"])
def test_a_run_that_belongs_to_somebody_else_is_refused(monkeypatch, capsys, what):
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        config = make_config(Path(folder))
        config.directory.mkdir(parents=True)
        lock = config.directory / ".lock"
        lock.touch(0o444)
        config.directory.chmod(0o555 if what == "folder" else 0o777)
        with somebody():
            said = refused(config, monkeypatch, capsys)
        config.directory.chmod(0o755)
    assert f"The run's folder {config.directory} cannot be written: Permission denied." in said


@contextmanager
def somebody() -> Iterator[None]:
    """No permission keeps root out: be somebody else."""
    if (me := os.geteuid()) == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(me)
