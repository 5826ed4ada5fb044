"""The crash test of the benchmarks on the stub programs, in short; and that its checks notice what they are for."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from benchmarks import crashes
from benchmarks.crash_checks import read_traces
from benchmarks.crash_driver import Orders
from benchmarks.crashes import RUN, Report, Start, crash
from flows.rest_em import RestEM
from tests.flows.conftest import small

KILLS, KILLS_NIGHTLY = 1, 60
# What the command does with a configuration, without the Prefect server, which takes longer to start than the loop.
DRIVER = """
import sys
from pathlib import Path

from flows import rest_em
from flows.commands import console
from flows.commands.exits import ended_plainly
from flows.commands.flow_table import LoadedFlow
from tests.flows.conftest import use_stub_programs

use_stub_programs(setattr)
console.reach_servers = lambda runs: None
config = rest_em.RestEM.model_validate_json(Path(sys.argv[1]).read_text())
flow = LoadedFlow(rest_em.rest_em.fn, rest_em.RestEM, rest_em.loop)
sys.exit(ended_plainly(lambda: console.run_flow(flow, config, dry_run=False, on_drift="refuse")))
"""


def command(runs: Path) -> list[str]:
    """The stub loop of one iteration in a runs folder."""
    config, driver = runs / "config.json", runs / "driver.py"
    settings = small(runs) | {"iterations": 1, "run": RUN, "runs_dir": runs}
    config.write_text(RestEM.model_validate(settings).model_dump_json())
    driver.write_text(DRIVER)
    return [str(driver), str(config)]


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("crashes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        return folder, crash(command, folder, KILLS, seed=3, workers=True)


def test_a_loop_killed_again_and_again_ends_as_if_it_had_been_left_alone(crashed):
    _, report = crashed
    assert not report.failures, "\n\n".join(report.failures)
    assert len(report.kills) == KILLS


@pytest.mark.nightly
def test_loops_killed_at_many_moments_end_as_if_they_had_been_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    report = crash(command, tmp_path, KILLS_NIGHTLY, seed=4, workers=True)
    assert not report.failures, "\n\n".join(report.failures)
    assert len(report.kills) == KILLS_NIGHTLY


def a_stray_run(runs: Path) -> None:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    client.create_run(client.search_experiments()[0].experiment_id)


def a_doubled_step(runs: Path) -> None:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    runs_there = client.search_runs([e.experiment_id for e in client.search_experiments()])
    parent = next(run for run in runs_there if "mlflow.parentRunId" not in run.data.tags)
    client.log_metric(parent.info.run_id, "validation/pass_at_1", 0.5, step=1)


def a_shard_too_many(runs: Path) -> None:
    shards = runs / RUN / "iter-1" / "generate" / "samples"
    shutil.copy(shards / "000000.parquet", shards / "000099.parquet")


def a_damaged_file(runs: Path) -> None:
    file = runs / RUN / "iter-1" / "select" / "examples.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def a_missing_stage(runs: Path) -> None:
    shutil.rmtree(runs / RUN / "iter-1" / "score")


def an_attempt(runs: Path) -> None:
    (runs / RUN / "iter-1" / ".train.attempt").mkdir()


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (a_stray_run, "in MLflow, runs is"),
        (a_doubled_step, "validation/pass_at_1 of parent has a step twice"),
        (a_shard_too_many, "000099.parquet is in no manifest"),
        (a_damaged_file, "select/examples.parquet"),
        (a_missing_stage, "the digest of iter-1/score is nothing instead of"),
        (an_attempt, ".train.attempt is left"),
    ],
)
def test_what_should_not_be_there_is_found(crashed, tmp_path, damage: Callable[[Path], None], fault: str):
    folder, _ = crashed
    runs = shutil.copytree(folder / "alone", tmp_path / "alone")
    sound = read_traces(folder / "alone", RUN, folder / "cache")
    assert sound.against(sound) == []
    damage(runs)
    assert any(fault in found for found in read_traces(runs, RUN, folder / "cache").against(sound))


def test_a_lock_that_is_held_is_found(crashed):
    folder, _ = crashed
    lock = folder / "alone" / RUN / ".lock"
    with FileLock(lock):
        faults = read_traces(folder / "alone", RUN, folder / "cache").faults
    assert faults == [f"{lock} is still held"]


def test_a_process_that_outlives_its_flow_is_found_and_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(crashes, "ORPHAN_SECONDS", 0.5)
    leaves_one = "import subprocess; subprocess.Popen(['sleep', '300'], start_new_session=True)"
    orders = Orders("marker", str(tmp_path / "reached"))
    with Start([sys.executable, "-c", leaves_one], {}, orders, tmp_path / "log") as start:
        assert start.end(20) == 0
        (orphan,) = start.orphans()
        assert "sleep 300" in orphan
    assert start.orphans() == []
