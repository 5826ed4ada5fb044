"""What both stub programs share: they can be told to crash, or to hang until they are killed."""

import os
import sys
import time
from pathlib import Path


def obey(stage: Path) -> None:
    """`STUB_CRASH` / `STUB_HANG` name a stage, such as iter-1/train, in which to fail or to wait."""
    name = f"{stage.parent.name}/{stage.name.removeprefix('.').removesuffix('.attempt')}"
    if os.environ.get("STUB_CRASH") == name:
        sys.exit("the stub was told to crash")
    if os.environ.get("STUB_HANG") == name:
        Path(os.environ["STUB_STARTED"]).write_text(str(os.getpid()))
        time.sleep(600)
