"""Freeing a stage's weights: what stays, what says so, and what a kill at any moment leaves."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.history.verify import freed_in, verify_run
from tasks.stage import freed
from tasks.stage.contract import Artifact, OnDrift, Outcome, Stage, Status, load_finished, run_stage, status
from tasks.stage.freed import FREED, FreedError, free, freed_files, read_freed, stage_that_freed, weights_of
from tasks.stage.run import LOCK_HOLDER, Run, finish_interrupted, hold_run

TRAIN = Stage("iter-1/train", 1, {}, {})
WEIGHTS = ("model-1.safetensors", "model-2.safetensors")
SMALL = ("policy/config.json", "policy/tokenizer.json", "adapter/adapter_model.safetensors")


class Killed(BaseException):
    """The process ends here."""


def work(attempt: Path) -> Outcome:
    for name in (*(f"policy/{name}" for name in WEIGHTS), *SMALL):
        (attempt / name).parent.mkdir(exist_ok=True)
        (attempt / name).write_text(f"{name} of 30 bytes or so")
    return Outcome()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The folder of a finished stage of a run in `tmp_path`, with weights in two files."""
    return run_stage(tmp_path, TRAIN, work).path


def reader(stage: Path, name: str) -> Stage:
    finished = load_finished(stage)
    assert finished is not None
    return Stage("iter-1/evaluate", 1, {}, {"policy": finished.artifact(name)})


def test_only_weights_go_the_manifest_stays_and_the_stage_is_finished(trained: Path, tmp_path: Path) -> None:
    manifest = (trained / "manifest.json").read_bytes()
    room = sum(file.stat().st_size for file in weights_of(trained))
    done = free(trained, "keep: best")
    assert done is not None and (done.bytes, done.done, done.by) == (room, True, "keep: best")
    assert [(trained / name).exists() for name in SMALL] == [True, True, True]
    assert weights_of(trained) == [] and read_freed(trained) == done
    assert (trained / "manifest.json").read_bytes() == manifest
    assert verify_run(tmp_path) == []
    today = f"{datetime.now(UTC).astimezone():%Y-%m-%d}"
    assert freed_in(tmp_path) == [f"{trained}: 2 files freed on {today} by keep: best."]
    assert status(tmp_path, TRAIN)[0] is Status.REUSE
    assert status(tmp_path, TRAIN, OnDrift.REBUILD)[0] is Status.REUSE
    assert status(tmp_path, TRAIN, remake=True)[0] is Status.RUN
    assert free(trained, "keep: best") is None


@pytest.mark.parametrize("steps", range(6))
def test_killed_at_any_moment_it_is_whole_and_the_next_holder_completes_it(
    steps: int, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes five steps: the intent, on the disk, two files, and the record."""
    taken: list[str] = []

    def counted(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def take(*arguments: Any, **options: Any) -> Any:
            if len(taken) == steps:
                raise Killed
            taken.append(name)
            return step(*arguments, **options)

        return take

    with monkeypatch.context() as patch:
        for owner, name in ((freed, "write_json"), (freed, "flush"), (Path, "unlink")):
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        if steps == 5:
            free(trained, "keep: best")
        else:
            with pytest.raises(Killed):
                free(trained, "keep: best")
    assert taken == ["write_json", "flush", "unlink", "unlink", "write_json"][:steps]
    assert verify_run(tmp_path) == []
    assert (len(weights_of(trained)), len(freed_files(trained))) == (max(2 - max(steps - 2, 0), 0), 2 * (steps > 0))
    finish_interrupted(tmp_path)
    assert len(weights_of(trained)) == (0 if steps else 2), "what was not even begun is not done"
    assert verify_run(tmp_path) == [] and (steps == 0 or read_freed(trained).done)  # type: ignore[union-attr]


def test_a_finished_run_whose_process_was_killed_is_not_said_to_be_held(tmp_path: Path) -> None:
    note = tmp_path / LOCK_HOLDER
    note.write_text("{}")
    finish_interrupted(tmp_path)
    assert not note.exists()


def test_a_file_that_is_missing_without_a_record_is_damage(trained: Path, tmp_path: Path) -> None:
    free(trained, "keep: best")
    for record in ("", "{}", '{"files": ["../../plan.json"], "bytes": 0, "at": "2026-01-01T00:00:00Z", "by": "me"}'):
        (trained / FREED).write_text(record)
        assert len(verify_run(tmp_path)) == 2
    (trained / FREED).unlink()
    assert len(verify_run(tmp_path)) == 2


def test_a_file_that_was_put_back_counts_and_is_not_removed_again(trained: Path, tmp_path: Path) -> None:
    file = weights_of(trained)[0]
    content = file.read_bytes()
    free(trained, "keep: best")
    file.write_bytes(content)
    with hold_run(tmp_path):
        assert weights_of(trained) == [file]
    assert verify_run(tmp_path) == [] and len(freed_files(trained)) == 1
    file.write_bytes(content[::-1])
    assert len(verify_run(tmp_path)) == 1


def test_what_stays_under_another_name_makes_no_room(trained: Path, tmp_path: Path) -> None:
    one, other = weights_of(trained)
    os.link(one, tmp_path / "best")
    size = other.stat().st_size
    done = free(trained, "keep: best")
    assert done is not None and done.bytes == size
    assert (tmp_path / "best").exists()


@pytest.mark.parametrize(("name", "gone"), [("policy", True), ("", True), ("adapter", False)])
def test_a_stage_that_reads_it_is_planned_as_lacking_and_refused_when_it_begins(
    name: str, gone: bool, trained: Path, tmp_path: Path
) -> None:
    free(trained, "clean --keep best")
    reads = reader(trained, name)
    assert stage_that_freed(trained / name) == (trained if gone else None)
    plan = Run(tmp_path, planning=True)
    plan.execute(reads, work)
    assert plan.lacking == ({"iter-1/train": "iter-1/evaluate"} if gone else {})
    if gone:
        with pytest.raises(
            FreedError, match=r"iter-1/evaluate needs the weights of iter-1/train, .* clean --keep best"
        ):
            Run(tmp_path).execute(reads, work)
    else:
        Run(tmp_path).execute(reads, work)


def test_made_again_it_is_no_longer_freed(trained: Path, tmp_path: Path) -> None:
    before = load_finished(trained)
    free(trained, "keep: best")
    again = Run(tmp_path, remake=frozenset({"iter-1/train"})).execute(TRAIN, work)
    assert before and again.finished and again.finished.manifest.digest == before.manifest.digest
    assert len(weights_of(trained)) == 2 and read_freed(trained) is None
    assert Run(tmp_path, remake=frozenset({"iter-1/train"})).execute(TRAIN, work).finished.reused  # type: ignore[union-attr]


def test_one_that_reads_from_elsewhere_lacks_nothing(tmp_path: Path) -> None:
    plan = Run(tmp_path, planning=True)
    plan.execute(Stage("iter-1/evaluate", 1, {}, {"policy": Artifact(tmp_path.parent / "model", "digest")}), work)
    assert plan.lacking == {}
