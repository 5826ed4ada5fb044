"""Two programs never use one GPU at the same time."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tasks.stage.devices import count_gpus, gpu_memory, visible_gpus
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


class NVMLError(Exception):
    """As in pynvml."""


def fake_nvml(gpus: Sequence[Sequence[bool] | str | None] | None) -> ModuleType:
    """A machine as pynvml tells it; without a driver where `gpus` is None.

    A GPU that cannot be split is None, one that may be and is not "whole", one that may not be used "denied"; of one in
    MIG mode, it is said which of its places have an instance.
    """

    def refuse_unless(fine: Any) -> None:
        if not fine:
            raise NVMLError

    def handle(number: int) -> Any:
        assert gpus is not None
        refuse_unless(gpus[number] != "denied")
        return gpus[number]

    def mode(gpu: Any) -> list[int]:
        refuse_unless(gpu is not None)
        return [int(gpu != "whole")] * 2

    module = ModuleType("pynvml")
    told = {
        "NVMLError": NVMLError,
        "NVML_DEVICE_MIG_DISABLE": 0,
        "nvmlInit": lambda: refuse_unless(gpus is not None),
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus or ()),
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMigMode": mode,
        "nvmlDeviceGetMaxMigDeviceCount": len,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda gpu, place: (refuse_unless(gpu[place]), f"instance {place}")[1],
        "nvmlDeviceGetMemoryInfo": lambda part: SimpleNamespace(total=10 if str(part).startswith("instance") else 80),
    }
    vars(module).update(told)
    return module


@pytest.mark.parametrize(
    ("gpus", "count"),
    [
        (None, 0),
        ([], 0),
        ([None, "whole"], 2),
        (["whole", "denied"], 1),
        ([[True, True, False]], 2),
        ([[False] * 7, "whole"], 1),
    ],
)
def test_gpus_are_those_that_the_driver_tells_of(monkeypatch: pytest.MonkeyPatch, gpus: Any, count: int):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(gpus))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert count_gpus() == count
    assert visible_gpus() == [str(number) for number in range(count)]


def hold(folder: Path, name: str, gpus: str, seconds: float) -> subprocess.Popen[str]:
    environment = {"CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(folder), "PATH": "/usr/bin:/bin"}
    root = Path(__file__).parents[3]
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


@pytest.mark.parametrize(
    ("gpus", "visible", "memory"),
    [
        (None, None, None),
        ([], None, None),
        ([None, "whole"], None, 80),
        (["whole", [True, False]], None, 10),
        (["whole", [True, False]], "0", 80),
        (["whole", [True, False]], "1", 10),
        (["whole", [True]], "MIG-ab", 10),  # any may be meant
        (["denied", "whole"], None, 80),
        (["whole"], "", None),
    ],
)
def test_memory_is_that_of_the_smallest_device_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, gpus: Any, visible: str | None, memory: int | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(gpus))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_memory() == memory
