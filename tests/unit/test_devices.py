"""Two programs never use one GPU at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage.devices import visible_gpus
from tests.waiting import eventually

HOLD = """
import sys, time
from pathlib import Path
from tasks.stage.devices import gpus_held
with gpus_held():
    Path(sys.argv[1]).write_text("held")
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("named", "gpus"),
    [("0", ["0"]), ("3,1", ["1", "3"]), ("", []), ("-1", []), ("GPU-ab, GPU-cd", ["GPU-ab", "GPU-cd"])],
)
def test_the_gpus_are_those_of_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch, named: str, gpus: list[str]):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == gpus


def hold(folder: Path, name: str, gpus: str, seconds: float) -> subprocess.Popen[str]:
    environment = {"CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(folder), "PATH": "/usr/bin:/bin"}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", HOLD, str(folder / name), str(seconds)]
    return subprocess.Popen(command, env=environment, cwd=root, stderr=subprocess.PIPE, text=True)


def await_file(file: Path) -> None:
    eventually(file.exists, f"{file.name} was not written")


@pytest.mark.parametrize(("second", "waits"), [("0,1", True), ("1", True), ("2", False), ("", False)])
def test_a_program_waits_for_a_gpu_that_another_holds(tmp_path: Path, second: str, waits: bool):
    first = hold(tmp_path, "first", "1,3", 60)
    await_file(tmp_path / "first")
    other = hold(tmp_path, "other", second, 0)
    if waits:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(5)
        assert not (tmp_path / "other").exists()
        first.kill()  # a killed holder lets go
    assert other.wait(60) == 0
    assert (tmp_path / "other").exists()
    first.kill()
    first.wait()
