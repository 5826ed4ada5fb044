"""Runs a loop on the stub programs in a process of its own, for tests that kill it. Arguments: flow, config."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
import models.score
import tasks.datasets.pairs
import tasks.datasets.select
from data.storage import write_rows
from flows import rest_em, spin
from tasks.loop.loop import run_loop
from tasks.rollouts.score import SCORES
from tasks.stage.contract import OnDrift
from tests.flows.conftest import use_stub_programs
from tests.flows.stubs.common import obey


def write_and_obey(row_type: Any, path: Path, rows: Iterable[Any]) -> int:
    """Score, select and pair run in this process: they crash or hang once their rows are written."""
    count = write_rows(row_type, path, rows)
    obey(path.parent.parent if path.parent.name == SCORES else path.parent)
    return count


use_stub_programs(setattr)
models.score.write_rows = tasks.datasets.select.write_rows = tasks.datasets.pairs.write_rows = write_and_obey
told = Path(sys.argv[2]).read_text()
if sys.argv[1] == "Spin":
    run_loop("SPIN", spin.loop, spin.Spin.model_validate_json(told), OnDrift.REFUSE)
else:
    run_loop("ReST-EM", rest_em.loop, rest_em.RestEM.model_validate_json(told), OnDrift.REFUSE)
