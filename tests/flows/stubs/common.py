"""What the stub programs share: they can be told to crash, to fill the disk, or to hang until they are let go."""

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np


def obey(stage: Path) -> None:
    """`STUB_CRASH` / `STUB_FILL` / `STUB_HANG` name a stage, such as iter-1/train, in which to do so."""
    name = f"{stage.parent.name}/{stage.name.removeprefix('.').removesuffix('.attempt')}"
    if os.environ.get("STUB_CRASH") == name:
        sys.exit("the stub was told to crash")
    if os.environ.get("STUB_FILL") == name:
        fill(Path(os.environ["STUB_BALLAST"]))
    if os.environ.get("STUB_HANG") == name:
        started = Path(os.environ["STUB_STARTED"])
        started.write_text(str(os.getpid()))
        deadline = time.monotonic() + 3600
        while time.monotonic() < deadline and not started.with_suffix(".go").exists():
            time.sleep(0.1)


def fill(ballast: Path) -> None:
    """Write a file until its disk is full."""
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def write_weights(policy: Path) -> None:
    """Weights of one number: the stub programs need none, but a policy without is no model."""
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(1, dtype=np.float32)}, policy / "model.safetensors")
