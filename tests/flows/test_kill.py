"""Killed or cancelled anywhere, a run goes on where it stopped and ends with the digests of one that was left alone."""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows import rest_em, spin
from tasks.loop.loop import run_loop
from tasks.settings.loop import LoopConfig
from tasks.stage.contract import OnDrift
from tests.flows.conftest import STUBS, make_config, make_spin, prepared
from tests.flows.test_rest_em import digests, history, times
from tests.forks import Fork, kill_group
from tests.waiting import PATIENCE, eventually, wait_gone


def nightly(*arguments: Any) -> Any:
    return pytest.param(*arguments, marks=pytest.mark.nightly)


MAKE: dict[str, Any] = {"rest-em": make_config, "spin": make_spin}
LOOPS: dict[str, Any] = {"rest-em": rest_em.loop, "spin": spin.loop}
# One start more for each of them, so the longer lists are nightly.
STAGES = [
    ("rest-em", ["iter-1/generate", "iter-1/train"]),
    ("spin", ["iter-1/reference"]),
    nightly("rest-em", ["iter-0/evaluate", "iter-1/generate", "iter-1/score", "iter-1/select", "iter-1/train"]),
    nightly("spin", ["iter-0/evaluate", "iter-1/generate", "iter-1/pair", "iter-1/reference", "final/best"]),
]


def driver(config: LoopConfig) -> list[str]:
    """The arguments with which Python runs a loop on the stub programs."""
    file = config.runs_dir / f"{config.run}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(config.model_dump_json())
    return [str(STUBS / "driver.py"), type(config).__name__, str(file)]


def inherited() -> dict[str, str]:
    """MLflow sets this variable in a process that has kept a history, as an earlier test may have done here."""
    return {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}


def drive(config: LoopConfig) -> int:
    """Run a loop to its end in a process of its own; return the exit code."""
    process = Fork(run_driver, *driver(config), environment=inherited())
    try:
        return process.wait(PATIENCE)
    finally:
        kill_group(process)


def run_driver(*arguments: str) -> None:
    sys.argv = [*arguments]
    runpy.run_path(arguments[0], run_name="__main__")


@contextmanager
def hanging(
    config: LoopConfig, stage: str, started: Path, anew: bool = False
) -> Iterator[tuple[Fork | subprocess.Popen[bytes], int]]:
    """A run that hangs in `stage`, and the hanging program's process id. In the end its process group is killed.

    Args:
        anew: start Python anew, which is slower.
    """
    environment = inherited() | {"STUB_HANG": stage, "STUB_STARTED": str(started)}
    if anew:
        command = [sys.executable, *driver(config)]
        process: Any = subprocess.Popen(command, start_new_session=True, env=environment)
    else:
        process = Fork(run_driver, *driver(config), environment=environment)

    def reached() -> bool:
        assert process.poll() is None
        return started.exists() and started.read_text() != ""

    try:
        eventually(reached, f"{stage} was not reached")
        yield process, int(started.read_text())
    finally:
        kill_group(process)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> dict[str, dict[str, str]]:
    """Digests of both flows' runs that nothing stops."""
    found = {}
    for flow, make in MAKE.items():
        config = make(tmp_path_factory.mktemp("undisturbed"), iterations=1)
        with prepared(cache):
            run_loop(flow, LOOPS[flow], config, OnDrift.REFUSE)
        found[flow] = digests(config)
    return found


@pytest.mark.parametrize(("flow", "stages"), STAGES)
def test_with_its_process_group_killed_in_each_stage_the_same_command_finishes_alike(
    tmp_path, flow, stages, undisturbed
):
    config = MAKE[flow](tmp_path, iterations=1)
    finished: dict[str, str] = {}
    for stage in stages:
        anew = stage == stages[-1]  # with other string hashes than the rest
        with hanging(config, stage, tmp_path / f"started-{stage.replace('/', '-')}", anew) as (_, program):
            assert finished.items() <= times(config).items(), f"on the way to {stage} a finished stage was run twice"
            finished = times(config)
        wait_gone(program)
    assert drive(config) == 0
    assert finished.items() <= times(config).items(), "a finished stage was run twice"
    assert digests(config) == undisturbed[flow]


def test_while_it_trains_mlflow_has_its_loss_and_ctrl_c_ends_the_program_and_leaves_the_history_killed(
    tmp_path, undisturbed
):
    config = make_config(tmp_path, iterations=1)
    with hanging(config, "iter-1/train", tmp_path / "started", anew=True) as (process, program):
        eventually(lambda: losses(config, 1) == [1.0], "its loss is not in MLflow")
        first, second = (child(config, number)[0].info for number in (0, 1))
        assert (first.status, second.status) == ("FINISHED", "RUNNING")
        assert first.start_time < first.end_time <= second.start_time + 1000, "their durations are not their own"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) != 0
        wait_gone(program, 10)
    _, runs = history(config)
    assert "KILLED" in {r.info.status for r in runs}
    assert drive(config) == 0
    assert digests(config) == undisturbed["rest-em"]


def child(config: LoopConfig, iteration: int) -> list[Any]:
    """An iteration's run in the history, once there is one."""
    return [run for run in history(config)[1] if run.data.tags.get("iteration") == str(iteration)]


def losses(config: LoopConfig, iteration: int) -> list[float | None]:
    return [run.data.metrics.get("train/loss") for run in child(config, iteration)]


def test_a_second_start_of_a_run_fails_at_once_and_says_who_holds_it(tmp_path):
    config = make_config(tmp_path, iterations=1)
    with hanging(config, "iter-1/generate", tmp_path / "started") as (process, _):
        command = [sys.executable, *driver(config)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert second.returncode != 0
    assert f"in use by process {process.pid}" in second.stderr
