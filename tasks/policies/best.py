"""The stage `best`: the policy of the best iteration, published under a fixed name."""

import os
import shutil
from pathlib import Path
from typing import Any

from data.files import write_json
from tasks.stage.contract import Artifact, Outcome, Stage
from tasks.stage.run import Result, Run

VERSION = 1


def publish_best(run: Run, policy: Artifact, iteration: int) -> Result:
    """Publish the policy of the best iteration as `best/policy`, with hard links: no second copy on disk."""
    stage = Stage("best", VERSION, {"iteration": iteration}, {"policy": policy})

    def work(attempt: Path) -> Outcome:
        shutil.copytree(policy.path, attempt / "policy", copy_function=_link)
        write_json(attempt / "best.json", {"iteration": iteration, "policy": policy.require()})
        return Outcome(said=f"the policy of iteration {iteration} is in {run.directory / 'best' / 'policy'}")

    return run.execute(stage, work)


def _link(source: str, target: str) -> Any:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
