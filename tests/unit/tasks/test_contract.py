"""The stage contract: a stage is published whole or not at all, recognized, reused, refused, rebuilt or resumed."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from data.files import write_json
from tasks.stage import contract
from tasks.stage.contract import (
    Artifact,
    CorruptStageError,
    DriftError,
    Finished,
    OnDrift,
    Outcome,
    Stage,
    Status,
    load_finished,
    run_stage,
    status,
)
from tasks.stage.disks import DiskError

STAGE = Stage("iter-1/select", 1, {"limit": 10, "nested": {"rate": 0.5}}, {"rows": Artifact(Path("rows"), "a1")}, 7)
WRITTEN = {"rows.parquet": b"0123456789", "shards/0.parquet": b"first", "shards/1.parquet": b"second"}


class Work:
    """Writes WRITTEN, and remembers what it found in each attempt directory it was given."""

    def __init__(self, files: dict[str, bytes] | None = None, error: Exception | None = None) -> None:
        self.files, self.error = WRITTEN if files is None else files, error
        self.found: list[set[str]] = []

    def __call__(self, attempt: Path) -> Outcome:
        self.found.append({str(p.relative_to(attempt)) for p in attempt.rglob("*") if p.is_file()})
        for name, content in self.files.items():
            (attempt / name).parent.mkdir(parents=True, exist_ok=True)
            (attempt / name).write_bytes(content)
        if self.error:
            raise self.error
        return Outcome(12, 3, {"wrong": 9}, ("python", "-m", "program"))

    @property
    def calls(self) -> int:
        return len(self.found)


def no_work(attempt: Path) -> Outcome:
    pytest.fail("the work was done again")


def leave_attempt(directory: Path, stage: Stage) -> None:
    """Fail in the middle of a stage."""
    with pytest.raises(RuntimeError, match="out of memory"):
        run_stage(directory, stage, Work({"half.parquet": b"half"}, RuntimeError("out of memory")))


def test_a_finished_stage_is_published_whole_and_then_reused_without_work(tmp_path: Path) -> None:
    work = Work()
    first = run_stage(tmp_path, STAGE, work)
    again = run_stage(tmp_path, STAGE, no_work)
    assert (first.reused, again.reused, work.calls) == (False, True, 1)
    assert again.path == tmp_path / "iter-1" / "select"
    assert {name: (again.path / name).read_bytes() for name in WRITTEN} == WRITTEN
    assert again.manifest == first.manifest
    assert status(tmp_path, STAGE)[0] is Status.REUSE


def test_every_file_is_on_the_disk_before_the_manifest_vouches_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    found_at_manifest: list[set[str]] = []

    def write(path: Path, value: Any) -> None:
        if path.name == "manifest.json":
            found_at_manifest.append({str(file.relative_to(path.parent)) for file in flushed})
        write_json(path, value)

    monkeypatch.setattr(contract, "flush", flushed.append)
    monkeypatch.setattr(contract, "write_json", write)
    run_stage(tmp_path, STAGE, Work())
    assert found_at_manifest == [set(WRITTEN)]
    assert flushed[-1] == tmp_path / "iter-1"


def test_nothing_but_the_finished_directory_is_left(tmp_path: Path) -> None:
    run_stage(tmp_path, STAGE, Work({".scratch/huge": b"x", ".partial": b"x", "rows.parquet": b"x"}))
    assert [p.name for p in (tmp_path / "iter-1").iterdir()] == ["select"]
    assert {p.name for p in (tmp_path / "iter-1" / "select").iterdir()} == {"rows.parquet", "manifest.json"}


def test_the_manifest_says_what_was_made_from_what_and_by_what(tmp_path: Path) -> None:
    run_stage(tmp_path, STAGE, Work(), runs={"prefect": "p-1", "mlflow": "m-1"})
    manifest = json.loads((tmp_path / "iter-1" / "select" / "manifest.json").read_text())
    expected = {
        "stage": "iter-1/select",
        "version": 1,
        "config": {"limit": 10, "nested": {"rate": 0.5}},
        "inputs": {"rows": "a1"},
        "seed": 7,
        "rows_in": 12,
        "rows_out": 3,
        "dropped": {"wrong": 9},
        "command": ["python", "-m", "program"],
        "runs": {"prefect": "p-1", "mlflow": "m-1"},
        "fingerprint": STAGE.fingerprint(),
    }
    assert {key: manifest[key] for key in expected} == expected
    assert set(manifest["outputs"]) == set(WRITTEN)
    digits = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"  # printf 0123456789 | sha256sum
    assert manifest["outputs"]["rows.parquet"] == {"size": 10, "sha256": digits}
    assert manifest["host"]
    assert manifest["packages"]["torch"]
    assert {"commit", "dirty"} <= manifest["code"].keys()
    assert 0 <= Finished(tmp_path, contract.Manifest.model_validate(manifest)).manifest.seconds < 60


def test_logs_are_listed_and_kept_but_neither_they_nor_hidden_files_enter_the_digest(tmp_path: Path) -> None:
    digests, files = (
        set(),
        {"log.txt": b"took 3 s", "policy/metrics.jsonl": b"{}", "program.json": b"3", ".hidden": b"3"},
    )
    for number, noise in enumerate((files, dict.fromkeys(files, b"took 4 s"))):
        finished = run_stage(tmp_path / str(number), STAGE, Work(WRITTEN | noise))
        digests.add((finished.manifest.digest, finished.artifact().digest))
        assert set(finished.manifest.logs) == {"log.txt", "policy/metrics.jsonl", "program.json"}
        assert set(finished.manifest.outputs) == set(WRITTEN)
        assert (finished.path / "log.txt").read_bytes() == noise["log.txt"]
    assert len(digests) == 1
    (finished.path / "log.txt").write_text("edited and longer")
    assert run_stage(tmp_path / "1", STAGE, no_work).reused
    other = run_stage(tmp_path / "2", STAGE, Work(WRITTEN | {"rows.parquet": b"9876543210"}))
    assert other.manifest.digest not in {digest for digest, _ in digests}


CHANGES: list[tuple[str, Stage, list[str]]] = [
    ("a setting", replace(STAGE, config={"limit": 20, "nested": {"rate": 0.5}}), ["config.limit: 10 → 20"]),
    ("a nested one", replace(STAGE, config={"limit": 10, "nested": {"rate": 1}}), ["config.nested.rate: 0.5 → 1"]),
    ("a new one", replace(STAGE, config={**STAGE.config, "extra": True}), ["config.extra: absent → True"]),
    ("one that went", replace(STAGE, config={"limit": 10}), ["config.nested.rate: 0.5 → absent"]),
    ("an input", replace(STAGE, inputs={"rows": Artifact(Path("rows"), "b2")}), ["inputs.rows: a1 → b2"]),
    ("the seed", replace(STAGE, seed=8), ["seed: 7 → 8"]),
    ("the version", replace(STAGE, version=2), ["version: 1 → 2"]),
]


@pytest.mark.parametrize(("changed", "says"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_drift_is_refused_naming_exactly_the_changed_fields_and_the_ways_on(
    tmp_path: Path, changed: Stage, says: list[str]
) -> None:
    run_stage(tmp_path, STAGE, Work())
    assert status(tmp_path, changed)[0] is Status.DRIFT
    with pytest.raises(DriftError) as refused:
        run_stage(tmp_path, changed, no_work)
    message = str(refused.value)
    assert [line.strip() for line in message.splitlines() if line.startswith("  ")] == says
    for words in ("iter-1/select is finished", "--on-drift rebuild", "--on-drift accept", "--run"):
        assert words in message
    assert run_stage(tmp_path, STAGE, no_work).reused


def test_drift_can_be_accepted_which_keeps_the_stage_as_it_is(tmp_path: Path) -> None:
    made = run_stage(tmp_path, STAGE, Work())
    kept = run_stage(tmp_path, replace(STAGE, seed=8), no_work, OnDrift.ACCEPT)
    assert kept.reused
    assert kept.manifest == made.manifest
    assert kept.manifest.seed == 7


def test_drift_can_be_rebuilt_which_replaces_the_stage(tmp_path: Path) -> None:
    run_stage(tmp_path, STAGE, Work(WRITTEN | {"old.parquet": b"old"}))
    rebuilt = run_stage(tmp_path, replace(STAGE, seed=8), Work(), OnDrift.REBUILD)
    assert (rebuilt.reused, rebuilt.manifest.seed) == (False, 8)
    assert not (rebuilt.path / "old.parquet").exists()
    assert [p.name for p in rebuilt.path.parent.iterdir()] == ["select"]
    assert run_stage(tmp_path, replace(STAGE, seed=8), no_work).reused


def test_a_rebuild_that_fails_leaves_the_finished_stage_where_it_was(tmp_path: Path) -> None:
    run_stage(tmp_path, STAGE, Work())
    with pytest.raises(RuntimeError, match="out of memory"):
        run_stage(tmp_path, replace(STAGE, seed=8), Work({}, RuntimeError("out of memory")), OnDrift.REBUILD)
    assert run_stage(tmp_path, STAGE, no_work).reused


def test_an_unchanged_stage_is_reused_also_under_rebuild(tmp_path: Path) -> None:
    run_stage(tmp_path, STAGE, Work())
    assert run_stage(tmp_path, STAGE, no_work, OnDrift.REBUILD).reused


RESUMABLE = replace(STAGE, resumable=True)


def shorten_attempt(attempt: Path) -> None:
    (attempt / "rows.parquet").write_bytes(b"")


def tear_attempt(attempt: Path) -> None:
    (attempt / "manifest.json").write_bytes(b"\xff")


@pytest.mark.parametrize(
    ("first", "second", "expected", "found"),
    [
        (RESUMABLE, RESUMABLE, Status.RESUME, {"half.parquet", ".attempt.json"}),
        (STAGE, STAGE, Status.RUN, {".attempt.json"}),
        (RESUMABLE, replace(RESUMABLE, seed=8), Status.RUN, {".attempt.json"}),
    ],
    ids=["resumable", "not resumable", "another fingerprint"],
)
def test_a_failed_attempt_publishes_nothing_and_only_a_resumable_stage_of_the_same_fingerprint_finds_it(
    tmp_path: Path, first: Stage, second: Stage, expected: Status, found: set[str]
) -> None:
    leave_attempt(tmp_path, first)
    assert load_finished(tmp_path / STAGE.name) is None
    assert status(tmp_path, second)[0] is expected
    work = Work()
    finished = run_stage(tmp_path, second, work)
    assert work.found == [found]
    assert ("half.parquet" in finished.manifest.outputs) == (expected is Status.RESUME)


@pytest.mark.parametrize("note", [b"", b'{"finger', b"7", b"[]", b"\xff"])
def test_an_attempt_whose_note_is_torn_is_cleared(tmp_path: Path, note: bytes) -> None:
    leave_attempt(tmp_path, RESUMABLE)
    (contract.attempt_directory(tmp_path, STAGE.name) / ".attempt.json").write_bytes(note)
    work = Work()
    run_stage(tmp_path, RESUMABLE, work)
    assert work.found == [{".attempt.json"}]


@pytest.mark.parametrize("stage", [STAGE, RESUMABLE], ids=["not resumable", "resumable"])
@pytest.mark.parametrize("drift", [False, True], ids=["first time", "rebuild"])
def test_an_attempt_killed_between_manifest_and_rename_is_published_without_working_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage, drift: bool
) -> None:
    on_drift = OnDrift.REFUSE
    if drift:
        run_stage(tmp_path, replace(stage, seed=1), Work())
        on_drift = OnDrift.REBUILD
    with monkeypatch.context() as patched:
        patched.setattr(contract, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_stage(tmp_path, stage, Work(), on_drift)
    published = run_stage(tmp_path, stage, no_work, on_drift)
    assert published.manifest.fingerprint == stage.fingerprint()
    assert {name: (published.path / name).read_bytes() for name in WRITTEN} == WRITTEN
    assert run_stage(tmp_path, stage, no_work).reused


@pytest.mark.parametrize("damage", [shorten_attempt, tear_attempt])
def test_an_attempt_with_a_manifest_whose_files_a_power_cut_tore_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(contract, "_publish", lambda *_: None)
        run_stage(tmp_path, STAGE, Work())
    damage(contract.attempt_directory(tmp_path, STAGE.name))
    work = Work()
    run_stage(tmp_path, STAGE, work).verify()
    assert work.calls == 1


def test_a_manifest_of_another_fingerprint_in_an_attempt_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(contract, "_publish", lambda *_: None)
        run_stage(tmp_path, STAGE, Work({"old.parquet": b"old"}))
    work = Work()
    finished = run_stage(tmp_path, replace(STAGE, seed=8), work)
    assert work.calls == 1
    assert set(finished.manifest.outputs) == set(WRITTEN)


@pytest.mark.parametrize("between", [0, 1], ids=["before the old one moves", "after the old one moved"])
def test_a_rebuild_killed_while_it_is_published_is_published_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: int
) -> None:
    changed, moved = replace(STAGE, seed=8), []

    def rename(source: Path, target: Path) -> None:
        if len(moved) == between:
            raise KeyboardInterrupt
        moved.append(source)
        os.replace(source, target)

    run_stage(tmp_path, STAGE, Work({"old.parquet": b"old"}))
    with monkeypatch.context() as patched:
        patched.setattr(contract.os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            run_stage(tmp_path, changed, Work(), OnDrift.REBUILD)
    finished = run_stage(tmp_path, changed, no_work, OnDrift.REBUILD)
    assert finished.manifest.seed == 8
    assert [p.name for p in finished.path.parent.iterdir()] == ["select"]


def remove_rows(path: Path) -> None:
    (path / "rows.parquet").unlink()


def shorten_shard(path: Path) -> None:
    (path / "shards" / "1.parquet").write_bytes(b"sec")


def remove_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def tear_manifest(path: Path) -> None:
    (path / "manifest.json").write_text('{"stage": "iter-1/sel')


def empty_manifest(path: Path) -> None:
    (path / "manifest.json").write_text("")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (remove_rows, ["rows.parquet is missing", "iter-1/select cannot be reused"]),
        (shorten_shard, ["shards/1.parquet has 3 bytes instead of 6"]),
        (remove_manifest, ["manifest.json is missing"]),
        (tear_manifest, ["manifest.json is not complete JSON"]),
        (empty_manifest, ["manifest.json is not complete JSON"]),
    ],
)
def test_a_damaged_stage_is_refused_naming_the_file_and_what_to_do(
    tmp_path: Path, damage: Callable[[Path], None], says: list[str]
) -> None:
    path = run_stage(tmp_path, STAGE, Work()).path
    damage(path)
    for attempt in (lambda: status(tmp_path, STAGE), lambda: run_stage(tmp_path, STAGE, no_work)):
        with pytest.raises(CorruptStageError) as refused:
            attempt()
        for words in (*says, str(path), "run the same command again"):
            assert words in str(refused.value)


def drop_outputs(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest.pop("outputs"))


def forge_digest(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest.update(digest="0" * 64))


def forge_config(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest["config"].update(limit=11))


def forge_time(path: Path) -> None:
    edit_manifest(path, lambda manifest: manifest.update(ended="2026-13-01T00:00:00"))


def spoil_encoding(path: Path) -> None:
    content = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(content.replace(b"iter-1", b"iter\xff1", 1))


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    edit(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_outputs, "(outputs: Field required)"),
        (forge_digest, "its parts contradict each other"),
        (forge_config, "its parts contradict each other"),
        (forge_time, "(ended: "),
        (spoil_encoding, "is not complete JSON"),
    ],
)
def test_a_manifest_that_is_not_as_it_was_written_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    path = run_stage(tmp_path, STAGE, Work()).path
    damage(path)
    with pytest.raises(CorruptStageError) as refused:
        load_finished(path)
    assert f"{path / 'manifest.json'} is " in str(refused.value)
    assert says in str(refused.value)


@pytest.mark.parametrize("value", [float("-inf"), 1e-6, 1e22, 10**20, "ü \u2028", [1, 2.0, None], {}])
def test_a_setting_of_any_value_comes_back_from_the_manifest(tmp_path: Path, value: Any) -> None:
    stage = replace(STAGE, config={"setting": value})
    run_stage(tmp_path, stage, Work())
    assert run_stage(tmp_path, stage, no_work).reused


def flip_a_bit(path: Path) -> None:
    content = bytearray(WRITTEN["shards/1.parquet"])
    content[2] ^= 1
    (path / "shards" / "1.parquet").write_bytes(content)


DAMAGES = [remove_rows, shorten_shard, remove_manifest, tear_manifest, forge_digest, flip_a_bit]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stage_is_made_anew_under_rebuild(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = run_stage(tmp_path, STAGE, Work()).path
    damage(path)
    assert status(tmp_path, STAGE, OnDrift.REBUILD) == (Status.RUN, None)
    rebuilt = run_stage(tmp_path, STAGE, Work(), OnDrift.REBUILD)
    assert not rebuilt.reused
    rebuilt.verify()
    assert [p.name for p in path.parent.iterdir()] == ["select"]
    assert run_stage(tmp_path, STAGE, no_work, OnDrift.REBUILD).reused


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_rebuild_that_fails_leaves_the_damaged_stage_where_it_was(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = run_stage(tmp_path, STAGE, Work()).path
    damage(path)
    left = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(RuntimeError, match="out of memory"):
        run_stage(tmp_path, STAGE, Work({}, RuntimeError("out of memory")), OnDrift.REBUILD)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == left


def test_a_damaged_stage_is_not_accepted(tmp_path: Path) -> None:
    shorten_shard(run_stage(tmp_path, STAGE, Work()).path)
    with pytest.raises(CorruptStageError):
        run_stage(tmp_path, STAGE, no_work, OnDrift.ACCEPT)


def test_a_file_that_cannot_be_read_is_damage_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = run_stage(tmp_path, STAGE, Work())

    def failing_disk(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(contract, "file_sha256", failing_disk)
    with pytest.raises(CorruptStageError, match=r"rows\.parquet cannot be read \(Input/output error\)"):
        finished.verify()


def test_a_clock_that_is_set_back_during_a_stage_gives_no_negative_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(10, 0, -1))
    monkeypatch.setattr(contract, "_now", lambda: datetime(2026, 1, 1, next(hours), tzinfo=UTC))
    manifest = run_stage(tmp_path, STAGE, Work()).manifest
    assert manifest.started == "2026-01-01T10:00:00+00:00"
    assert 0 <= manifest.seconds < 60


def test_a_full_disk_is_named_with_the_stage_and_publishes_nothing(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.parquet")
    with pytest.raises(DiskError, match=r"^iter-1/select stopped: a disk is full"):
        run_stage(tmp_path, STAGE, Work({}, full))
    assert load_finished(tmp_path / STAGE.name) is None


def test_verify_finds_a_flipped_bit_that_leaves_the_size_as_it_was(tmp_path: Path) -> None:
    finished = run_stage(tmp_path, STAGE, Work())
    finished.verify()
    flip_a_bit(finished.path)
    assert load_finished(finished.path) is not None
    with pytest.raises(CorruptStageError) as found:
        finished.verify()
    for words in ("shards/1.parquet", "SHA-256", "--on-drift rebuild", "delete", "run the same command again"):
        assert words in str(found.value)


def test_a_fingerprint_depends_on_what_changes_the_result_alone() -> None:
    same = [
        replace(STAGE, config={"nested": {"rate": 0.5}, "limit": 10}),
        replace(STAGE, inputs={"rows": Artifact(Path("elsewhere/entirely"), "a1")}),
        replace(STAGE, name="iter-2/select", command="python", resumable=True),
    ]
    assert {stage.fingerprint() for stage in same} == {STAGE.fingerprint()}
    different = {changed.fingerprint() for _, changed, _ in CHANGES}
    assert len(different | {STAGE.fingerprint()}) == len(CHANGES) + 1


def test_an_artifact_is_one_file_a_folder_or_everything_with_the_digest_of_just_that(tmp_path: Path) -> None:
    first = run_stage(tmp_path / "1", STAGE, Work())
    other = run_stage(tmp_path / "2", STAGE, Work(WRITTEN | {"rows.parquet": b"9876543210"}))
    for name, same in (("rows.parquet", False), ("shards", True), ("shards/0.parquet", True), ("", False)):
        assert first.artifact(name).path == first.path / name
        assert (first.artifact(name).digest == other.artifact(name).digest) == same
    assert len({first.artifact(name).digest for name in ("rows.parquet", "shards", "shards/0.parquet", "")}) == 4
    assert first.artifact().digest == first.manifest.digest


def test_an_artifact_has_the_same_digest_whatever_folder_it_was_written_to(tmp_path: Path) -> None:
    one = run_stage(tmp_path / "1", STAGE, Work({"a/model.bin": b"m", "a/deep/c.json": b"c"})).artifact("a")
    two = run_stage(tmp_path / "2", STAGE, Work({"b/model.bin": b"m", "b/deep/c.json": b"c"})).artifact("b")
    assert one.digest == two.digest


@pytest.mark.parametrize("name", ["absent.parquet", "shard", "log.txt"])
def test_an_output_that_a_stage_does_not_have_is_refused_with_those_it_has(tmp_path: Path, name: str) -> None:
    finished = run_stage(tmp_path, STAGE, Work(WRITTEN | {"log.txt": b"log"}))
    with pytest.raises(KeyError, match=r"no output .*rows\.parquet, shards/0\.parquet"):
        finished.artifact(name)


def test_a_stage_whose_inputs_are_only_planned_is_open_and_cannot_be_fingerprinted(tmp_path: Path) -> None:
    planned = replace(STAGE, inputs={"rows": Artifact(Path("rows"), None)})
    assert status(tmp_path, planned)[0] is Status.RUN
    run_stage(tmp_path, STAGE, Work())
    assert status(tmp_path, planned)[0] is Status.OPEN
    with pytest.raises(RuntimeError, match="rows is needed before the stage that makes it has run"):
        planned.fingerprint()


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "ids.json"
    write_json(path, {"name": "Müller"})
    with pytest.raises(TypeError):
        write_json(path, {"a": 1, "b": object()})
    assert json.loads(path.read_text()) == {"name": "Müller"}
